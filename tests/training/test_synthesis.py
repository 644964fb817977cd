"""The terms that made images minimise, and what makes them, piece by piece."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdeploy.loading import Batch
from kdeploy.methods import Context
from kdeploy.models.classifier import Classifier
from kdeploy.recipe.procedures.data_free import DeepInversionOptions, FastOptions
from kdeploy.training.synthesis.deepinversion import Inversion, Pixels
from kdeploy.training.synthesis.fast import Pool, Rounds
from kdeploy.training.synthesis.generator import Generator
from kdeploy.training.synthesis.losses import (
    InputStatistics,
    activation,
    adversarial,
    balance,
    one_hot,
    total_variation,
)
from tests.training import tiny


def logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def teacher() -> Classifier:
    """A small convolutional network with two batch norms that have seen something."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    made = Classifier(network, [0.4, 0.5, 0.6], [0.2, 0.25, 0.3])
    network.train()
    for _ in range(20):
        made(torch.rand(32, 3, 8, 8))
    return made.eval().requires_grad_(False)


class TestTerms:
    def test_one_hot_is_cross_entropy(self) -> None:
        given, classes = logits(4, 5), torch.tensor([0, 4, 2, 2])
        by_hand = -torch.stack([row.log_softmax(0)[label] for row, label in zip(given, classes, strict=True)]).mean()
        torch.testing.assert_close(one_hot(given, classes).double(), by_hand, rtol=1e-5, atol=1e-6)

    def test_balance_is_lowest_where_all_classes_are_as_frequent(self) -> None:
        uniform = balance(10 * torch.eye(5).repeat(3, 1))
        assert uniform.item() == pytest.approx(-math.log(5), abs=1e-6)
        assert balance(torch.tensor([[1000.0, 0, 0]])).item() == 0
        for seed in range(10):
            assert uniform.item() <= balance(logits(6, 5, seed=seed)).item() <= 0

    def test_balance_by_hand(self) -> None:
        mean = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]]).softmax(1).mean(0)  # 0.625 and 0.375
        assert balance(torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])).item() == pytest.approx(
            sum(p * math.log(p) for p in mean.tolist())
        )

    def test_activation_is_minus_the_mean_magnitude(self) -> None:
        assert activation(torch.tensor([[1.0, -3.0], [0.0, 2.0]])).item() == -1.5

    def test_adversarial_is_zero_where_the_student_is_the_teacher(self) -> None:
        given = logits(8, 5)
        assert adversarial(given, given).item() == pytest.approx(0, abs=1e-7)
        assert adversarial(given, 3 * given).item() < 0

    def test_adversarial_looks_only_where_both_name_one_class(self) -> None:
        theirs = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
        ours = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        p, q = theirs[0].softmax(0), ours[0].softmax(0)
        assert adversarial(ours, theirs).item() == pytest.approx(-(p * (p / q).log()).sum().item() / 2, rel=1e-4)

    def test_total_variation_by_hand(self) -> None:
        image = torch.tensor([[[[0.0, 1.0], [3.0, 7.0]]]])
        by_hand = math.hypot(1, 4) + math.hypot(3, 6) + 7 + 2
        assert total_variation(image).item() == pytest.approx(by_hand)
        assert total_variation(torch.full((2, 3, 4, 4), 0.3)).item() == 0


class TestInputStatistics:
    def one_layer(self) -> tuple[nn.Sequential, Tensor]:
        """A batch norm whose running statistics are those of a batch."""
        images = torch.randn(16, 3, 4, 4)
        norm = nn.BatchNorm2d(3)
        norm.running_mean = images.mean((0, 2, 3))
        norm.running_var = images.var((0, 2, 3), correction=0)
        return nn.Sequential(norm).eval(), images

    def test_zero_on_what_the_statistics_are_of(self) -> None:
        network, images = self.one_layer()
        watch = InputStatistics(network)
        with watch.watching():
            network(images)
        assert watch.term().item() == pytest.approx(0, abs=1e-5)

    def test_the_distances_by_hand(self) -> None:
        network, images = self.one_layer()
        watch = InputStatistics(network)
        with watch.watching():
            network(2 * images + 1)
        mean, var = images.mean((0, 2, 3)), images.var((0, 2, 3), correction=0)
        torch.testing.assert_close(watch.term(), (mean + 1).norm() + (3 * var).norm(), rtol=1e-4, atol=1e-4)

    def test_the_hooks_are_gone_afterwards(self) -> None:
        network, _ = self.one_layer()
        watch = InputStatistics(network)
        with pytest.raises(KeyboardInterrupt), watch.watching():
            raise KeyboardInterrupt
        assert not any(module._forward_pre_hooks or module._forward_hooks for module in network.modules())

    def test_a_teacher_is_left_as_it_was(self) -> None:
        made = teacher()
        before = copy.deepcopy(made.state_dict())
        watch = InputStatistics(made)
        images = torch.rand(8, 3, 8, 8, requires_grad=True)
        with watch.watching():
            made(images)
        watch.term().backward()
        assert images.grad is not None
        assert images.grad.abs().sum() > 0
        assert tiny.same(made.state_dict(), before)
        assert all(parameter.grad is None for parameter in made.parameters())
        assert not list(watch.parameters())

    def test_a_mean_over_batches(self) -> None:
        network, images = self.one_layer()
        watch, plain = InputStatistics(network, momentum=0.75), InputStatistics(network)
        for given in (images, 3 * images):
            for each in (watch, plain):
                with each.watching():
                    network(given)
            if given is images:
                watch.remember()
        mean, var = images.mean((0, 2, 3)), images.var((0, 2, 3), correction=0)
        expected = (0.25 * 3 * mean + 0.75 * mean - mean).norm() + (0.25 * 9 * var + 0.75 * var - var).norm()
        torch.testing.assert_close(watch.term(), expected, rtol=1e-4, atol=1e-5)
        assert watch.term() < plain.term()

    def test_what_is_remembered_is_part_of_a_checkpoint(self) -> None:
        network, images = self.one_layer()
        watch, other = InputStatistics(network, 0.9), InputStatistics(network, 0.9)
        with watch.watching():
            network(images)
        watch.remember()
        other.load_state_dict(watch.state_dict())
        for each in (watch, other):
            with each.watching():
                network(5 * images)
        assert torch.equal(watch.term(), other.term())


class TestGenerator:
    @pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 13, 6)])
    def test_images_are_such_as_eight_bits_hold(self, shape: tuple[int, int, int]) -> None:
        torch.manual_seed(0)
        images = Generator(16, shape)(10 * torch.randn(4, 16, 1, 1))
        assert images.shape == (4, *shape)
        assert 0 <= images.min() < images.max() <= 1


class TestInversion:
    def pixels(self) -> Pixels:
        start = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(3))
        return Pixels(start, [0.4, 0.5, 0.6], [0.2, 0.25, 0.3])

    def objective(self, made: Classifier, **weights: float) -> Inversion:
        told = DeepInversionOptions(**{"bn": 1.0, "oh": 1.0, "tv": 1e-3, "l2": 1e-3, "jitter": 2, **weights})
        return Inversion(made, torch.tensor([0, 1, 2, 3, 4, 0]), told, seed=0)

    def test_pixels_stay_inside_what_can_be_shown(self) -> None:
        pixels = self.pixels()
        images = pixels(torch.empty(0))
        assert images.min() >= 0
        assert images.max() <= 1
        with torch.no_grad():
            pixels.values.add_(100)
        assert (pixels(torch.empty(0)) == 1).all()

    def test_it_asks_for_what_it_says(self) -> None:
        made, pixels = teacher(), self.pixels()
        batch = Batch(torch.empty(6, 1), torch.full((6,), -1), torch.arange(6))
        step = self.objective(made)(pixels, batch, Context(step=4))
        assert set(step.terms) == {"bn", "oh", "tv", "l2"}
        torch.testing.assert_close(step.loss, sum(step.terms.values()))
        assert step.labels.tolist() == [0, 1, 2, 3, 4, 0]
        doubled = self.objective(made, oh=2.0)(pixels, batch, Context(step=4))
        torch.testing.assert_close(doubled.terms["oh"], 2 * step.terms["oh"])

    def test_steps_are_shown_shifted_and_the_same_step_alike(self) -> None:
        objective, images = self.objective(teacher()), torch.rand(2, 3, 8, 8)
        shown = [objective._moved(images, step) for step in range(30)]
        assert len({tuple(each.flatten().tolist()) for each in shown}) > 10
        assert all(torch.equal(each, objective._moved(images, step)) for step, each in enumerate(shown))
        assert all(torch.equal(each.flatten().sort().values, images.flatten().sort().values) for each in shown)

    def test_the_loss_falls(self) -> None:
        made, pixels = teacher(), self.pixels()
        before = copy.deepcopy(made.state_dict())
        objective = self.objective(made)
        optimizer = torch.optim.Adam(pixels.parameters(), lr=0.05)
        batch = Batch(torch.empty(6, 1), torch.full((6,), -1), torch.arange(6))
        losses = []
        for number in range(40):
            step = objective(pixels, batch, Context(step=number))
            optimizer.zero_grad()
            step.loss.backward()
            optimizer.step()
            losses.append(step.loss.item())
        assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
        assert tiny.same(made.state_dict(), before)


class TestRoundsAndPool:
    def test_rounds_come_first_and_then_before_so_many_steps(self) -> None:
        rounds = Rounds(warmup=3, every=2)
        made = [rounds.makes(step) for step in range(12)]
        assert made == [True] * 3 + [True, False, False] * 3
        assert [rounds.before(step) for step in range(13)] == [sum(made[:step]) for step in range(13)]

    def test_the_oldest_are_replaced_also_where_batches_do_not_divide_the_pool(self) -> None:
        pool = Pool(5, (1, 1, 1))
        for number in range(4):
            pool.put(torch.arange(3 * number, 3 * number + 3).view(3, 1, 1, 1) / 255, 3 * number)
        assert pool.images.flatten().tolist() == [10, 11, 7, 8, 9]
        assert [pool.filled(made) for made in (0, 3, 5, 12)] == [0, 3, 5, 5]

    def test_a_pool_is_part_of_a_checkpoint(self) -> None:
        pool, other = Pool(4, (1, 2, 2)), Pool(4, (1, 2, 2))
        pool.put(torch.rand(4, 1, 2, 2), 0)
        other.load_state_dict(pool.state_dict())
        assert torch.equal(other.images, pool.images)


def fast(made: Classifier, student: Classifier, **more: Any) -> Any:
    from kdeploy import methods
    from kdeploy.recipe.schema import AugmentSpec
    from kdeploy.training.objective import Distillation, Lesson
    from kdeploy.training.synthesis.fast import Fast
    from kdeploy.training.teaching import Live
    from kdeploy.training.views import View, survey

    weighted = [(methods.create("kd", temperature=1), 1.0)]
    needs = [weighted[0][0].needs]
    ours, theirs = survey(student, made, needs, shape=(3, 8, 8), classes=5)
    lesson = Lesson(Live(made, View(made, theirs, needs, "teacher")), weighted, View(student, ours, needs, "student"))
    torch.manual_seed(1)
    return Fast(
        Generator(8, (3, 8, 8)),
        made,
        student,
        Distillation([lesson], 0.0, named_by_teacher=True),
        Pool(32, (3, 8, 8)),
        rounds=Rounds(1, 2),
        told=FastOptions(iterations=3, lr=0.01, latent_lr=0.01, bn=1, oh=1, adversarial=1),
        classes=5,
        augment=AugmentSpec(crop=1),
        seed=0,
        **more,
    )


class TestFast:
    def test_a_round_moves_the_generator_by_the_sum_of_its_copys_gradients(self) -> None:
        """By hand: Adam on a copy and on the latents, three times."""
        made, student = teacher(), teacher()
        objective = fast(made, student).train()
        latents = torch.randn(16, 8, 1, 1)
        copied, moved = copy.deepcopy(objective.generator), latents.clone().requires_grad_()
        before = copy.deepcopy((objective.generator.state_dict(), made.state_dict(), student.state_dict()))
        step = objective(student, Batch(latents, torch.full((16,), -1), torch.arange(16)), Context(step=0))
        assert step.loss.item() == 0
        step.loss.backward()
        optimizer = torch.optim.Adam([*copied.parameters(), moved], lr=0.01, betas=(0.5, 0.999))
        watch, total = InputStatistics(made), None
        for _ in range(3):
            with watch.watching():
                said = made(copied(moved))
            loss = watch.term() + one_hot(said, step.labels)
            optimizer.zero_grad()
            loss.backward()
            found = [parameter.grad.clone() for parameter in copied.parameters()]
            total = found if total is None else [a + b for a, b in zip(total, found, strict=True)]
            optimizer.step()
        for parameter, expected in zip(objective.generator.parameters(), total, strict=True):
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6)
        after = (objective.generator.state_dict(), made.state_dict(), student.state_dict())
        assert all(tiny.same(one, other) for one, other in zip(before, after, strict=True))
        assert all(parameter.grad is None for parameter in student.parameters())
        assert not any(module._forward_pre_hooks for module in made.modules())

    def test_between_rounds_the_student_learns_from_the_pool(self) -> None:
        made, student = teacher(), teacher()
        torch.nn.init.normal_(student.network[8].weight)
        student.requires_grad_(True).train()
        objective = fast(made, student).train()
        latents = Batch(torch.randn(16, 8, 1, 1), torch.full((16,), -1), torch.arange(16))
        objective(student, latents, Context(step=0))
        objective(student, latents, Context(step=1))
        step = objective(student, latents, Context(step=2))
        step.loss.backward()
        assert step.terms["kd"] > 0
        assert step.terms["adversarial"] <= 0
        assert len(step.labels) == 16
        assert all(parameter.grad is None for parameter in objective.generator.parameters())
        assert student.network[8].weight.grad.abs().sum() > 0

    def test_teacher_and_student_are_no_part_of_what_it_saves(self) -> None:
        objective = fast(teacher(), teacher())
        assert {name.partition(".")[0] for name in objective.state_dict()} <= {
            "generator",
            "pool",
            "statistics",
            "figures",
            "distillation",
        }
