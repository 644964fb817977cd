"""What members minimise: golden parts, who is compared with whom, and on which images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdeploy import methods
from kdeploy.loading import Batch
from kdeploy.loading.mixing import Mixed
from kdeploy.methods import Context, Outputs
from kdeploy.models.batch_ensemble import BatchEnsemble
from kdeploy.models.classifier import Classifier
from kdeploy.training.members import MemberDistillation
from kdeploy.training.objective import Lesson, label_loss
from kdeploy.training.perturbation import Perturbation
from kdeploy.training.teaching import Live
from kdeploy.training.views import View, survey

CLASSES, MEMBERS = 4, 3
SHAPE = (1, 4, 4)


def small(seed: int, width: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * width, CLASSES),
    )


def around(network: nn.Module) -> Classifier:
    return Classifier(network, [0.4], [0.3]).double()


def student() -> Classifier:
    return around(BatchEnsemble(small(1), MEMBERS, torch.Generator().manual_seed(0))).train()


def teachers(*seeds: int) -> list[Classifier]:
    return [around(small(seed, 5)).eval().requires_grad_(False) for seed in seeds]


def batch(**more: Any) -> Batch:
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(6, *SHAPE, generator=generator, dtype=torch.float64)
    return Batch(images, torch.arange(6) % CLASSES, torch.arange(6), **more)


def objective(
    network: Classifier,
    taught: list[Classifier],
    *,
    kind: str | None = "ods",
    step: float = 20.0,
    cross_entropy: float = 0.1,
    method: str = "kd",
    **options: Any,
) -> MemberDistillation:
    lessons = []
    for teacher in taught:
        made = methods.create(method, **options)
        ours, theirs = survey(network, teacher, [made.needs], shape=SHAPE, classes=CLASSES)
        made.build(ours.shapes, theirs.shapes)
        teaching = Live(teacher, View(teacher, theirs, [made.needs], "teacher"))
        lessons.append(Lesson(teaching, [(made.double(), 0.9)], View(network, ours, [made.needs], "student"), 1 / 3))
    perturb = None if kind is None else Perturbation(kind, taught, step=step, temperature=1.0, seed=2)  # type: ignore[arg-type]
    return MemberDistillation(lessons, cross_entropy, perturb, rank_one_lr=0.5)


def members_of(network: Classifier, images: Tensor) -> Tensor:
    return network(images).view(MEMBERS, len(images), CLASSES)


@pytest.mark.parametrize("kind", ["ods", "confods", "gaussian", None])
def test_member_m_learns_from_teacher_m_on_the_perturbed_images_and_labels_on_their_own(kind: str | None) -> None:
    network, taught = student(), teachers(2, 3, 4)
    asked = objective(network, taught, kind=kind, temperature=2.0)
    step = asked(network, batch(), Context(step=7))
    images, labels = batch().images, batch().labels
    shown = images
    if kind is not None:
        shown = Perturbation(kind, taught, step=20.0, temperature=1.0, seed=2)(batch(), 7)  # type: ignore[arg-type]
        assert not torch.equal(shown, images)
    hard = F.cross_entropy(network(images), labels.repeat(MEMBERS))
    targets = torch.cat([teacher(shown) for teacher in taught])
    soft = 4 * F.kl_div(F.log_softmax(network(shown) / 2, dim=1), F.softmax(targets / 2, dim=1), reduction="batchmean")
    torch.testing.assert_close(step.terms["cross_entropy"], 0.1 * hard)
    torch.testing.assert_close(step.terms["kd"], 0.9 * soft)
    torch.testing.assert_close(step.loss, 0.1 * hard + 0.9 * soft)
    torch.testing.assert_close(step.logits, members_of(network, images).softmax(dim=2).mean(dim=0).log())
    assert step.loss.requires_grad
    assert not step.logits.requires_grad


def test_the_cross_entropy_does_not_depend_on_the_perturbation() -> None:
    network, taught = student(), teachers(2, 3, 4)
    near, far = (objective(network, taught, step=step)(network, batch(), Context()) for step in (1.0, 50.0))
    assert torch.equal(near.terms["cross_entropy"], far.terms["cross_entropy"])
    assert not torch.equal(near.terms["kd"], far.terms["kd"])


def test_a_step_of_nothing_is_plain_distillation() -> None:
    network, taught = student(), teachers(2, 3, 4)
    still = objective(network, taught, step=1e-300)(network, batch(), Context())
    plain = objective(network, taught, kind=None)(network, batch(), Context())
    torch.testing.assert_close(still.loss, plain.loss)


def test_without_cross_entropy_accuracy_is_still_that_of_the_images_themselves() -> None:
    network, taught = student(), teachers(2, 3, 4)
    step = objective(network, taught, cross_entropy=0.0)(network, batch(), Context())
    assert set(step.terms) == {"kd"}
    expected = members_of(network, batch().images).softmax(dim=2).mean(dim=0).log()
    torch.testing.assert_close(step.logits, expected)


def test_mixed_labels_count_in_their_shares() -> None:
    network, taught = student(), teachers(2, 3, 4)
    mixed = batch(mixed=Mixed(torch.arange(5, -1, -1), 0.75))
    step = objective(network, taught)(network, mixed, Context())
    each = [label_loss(logits, mixed, 0.0) for logits in members_of(network, mixed.images)]
    torch.testing.assert_close(step.terms["cross_entropy"], 0.1 * torch.stack(each).mean())


def test_a_method_on_features_compares_a_members_with_its_own_teachers() -> None:
    network, taught = student(), teachers(2, 3, 4)
    asked = objective(network, taught, kind=None, method="fitnet")
    found = asked(network, batch(), Context()).terms["fitnet"]
    rows = torch.cat([(batch().images - network.mean) / network.std] * MEMBERS)
    maps = network.network.network[:4](rows).unflatten(0, (MEMBERS, -1))
    expected = []
    for ours, teacher, lesson in zip(maps, taught, asked.lessons, strict=True):
        theirs = teacher.network[:4]((batch().images - teacher.mean) / teacher.std)
        (method, weight), *_ = lesson.methods
        outputs = (Outputs(torch.zeros(6, CLASSES), [each], each.flatten(1)) for each in (ours, theirs))
        expected.append(weight * method(*outputs, batch().labels, Context()))
    torch.testing.assert_close(found, torch.stack(expected).mean())


def test_gradients_reach_weights_and_vectors_and_no_teacher() -> None:
    network, taught = student(), teachers(2, 3, 4)
    step = objective(network, taught)(network, batch(), Context())
    step.loss.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert all(parameter.grad is None for teacher in taught for parameter in teacher.parameters())
    assert not set(objective(network, taught).parameters()).intersection(taught[0].parameters())


def test_the_gradient_of_a_vector_is_that_of_finite_differences() -> None:
    network, taught = student(), teachers(2, 3, 4)
    asked, nudge = objective(network, taught), 1e-6
    layer = network.network.network[0]
    loss = asked(network, batch(), Context()).loss
    slopes = torch.autograd.grad(loss, [layer.alpha, layer.gamma, layer.bias])
    for vectors, slope in zip((layer.alpha, layer.gamma, layer.bias), slopes, strict=True):
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                vectors[1, 0] += sign * nudge
                sides.append(asked(network, batch(), Context()).loss.item())
                vectors[1, 0] -= sign * nudge
        assert slope[1, 0].item() == pytest.approx((sides[0] - sides[1]) / (2 * nudge), rel=1e-5, abs=1e-8)


def test_identical_teachers_agree_wherever_the_images_go() -> None:
    taught = teachers(2, 2, 2)
    shown = Perturbation("ods", taught, step=30.0, temperature=1.0, seed=2)(batch(), 0)
    said = [teacher(shown).log_softmax(dim=1) for teacher in taught]
    for other in said[1:]:
        assert F.kl_div(said[0], other, reduction="batchmean", log_target=True).item() == 0


def test_only_the_vectors_are_trained_apart() -> None:
    network, taught = student(), teachers(2, 3, 4)
    (apart,) = objective(network, taught).apart(network)
    named = {id(parameter): name for name, parameter in network.named_parameters()}
    assert sorted(named[id(parameter)] for parameter in apart.parameters) == [
        f"network.network.{layer}.{vectors}" for layer in (0, 2, 5) for vectors in ("alpha", "gamma")
    ]
    assert (apart.lr_factor, apart.weight_decay) == (0.5, False)
