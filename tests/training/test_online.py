"""What students of one stem minimise together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from kdeploy import methods
from kdeploy.loading import Batch
from kdeploy.methods import Context, Outputs, Shapes
from kdeploy.models.classifier import Classifier
from kdeploy.recipe.schema import Recipe
from kdeploy.training.online import Adapters, OnlineEnsemble
from kdeploy.training.procedures import online_ensemble
from kdeploy.training.steps import Steps
from tests.methods.golden import S, T, assert_golden, leaf, y, zs, zt
from tests.training import tiny
from tests.training.test_online_ensemble import recipe

THIRD = 2 * S(4, 5) * T(4, 5)


class Table(nn.Module):
    """A network whose logits are its parameters, a row for each pixel index, which its stem passes on."""

    stem_modules = ("stem",)

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.stem = nn.Identity()
        self.logits = nn.Parameter(logits.clone())

    def forward(self, images: Tensor) -> Tensor:
        return self.body(self.stem(images))

    def body(self, features: Tensor) -> Tensor:
        return self.logits[features[:, 0, 0, 0].long()]


def step_of(*logits: Tensor, labels: float, ensemble: float) -> tuple[Any, list[Tensor]]:
    """The loss of students with these logits, without features, and the logits as they are trained."""
    first, *others = (Classifier(Table(each), [0.0], [1.0]) for each in logits)
    weighted = [(methods.create("kd", temperature=2), ensemble)]
    by_role = {f"student-{number}": other for number, other in enumerate(others, 2)}
    objective = OnlineEnsemble(first, by_role, weighted, labels)
    images = torch.arange(4, dtype=torch.float64).reshape(4, 1, 1, 1)
    step = objective(first, Batch(images, y, torch.arange(4)), Context())
    return step, [each.network.logits for each in (first, *others)]  # type: ignore[misc]


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """For a recipe: its students, their loss, and a batch."""

    def make(asked: Recipe) -> tuple[dict[str, Classifier], OnlineEnsemble, Batch]:
        shop = tiny.workshop(asked, tmp_path)
        found, objective = online_ensemble._made(shop)
        return found, objective, next(iter(shop.training(asked.distill, 0).epoch(0)))

    return make


class TestLoss:
    @pytest.mark.parametrize(
        ("labels", "ensemble", "golden"),
        [(1, 0, 6.7780098107), (0, 1, 0.6708700297), (0.7, 0.15, 4.8452373720)],
        ids=["labels", "ensemble", "both"],
    )
    def test_golden(self, labels: float, ensemble: float, golden: float) -> None:
        step, _ = step_of(zs, zt, THIRD, labels=labels, ensemble=ensemble)
        assert_golden(step.loss, golden)
        assert torch.equal(step.logits, zs)

    def test_the_ensemble_gets_no_gradient(self) -> None:
        three = [zs, zt, THIRD]
        step, trained = step_of(*three, labels=0.7, ensemble=0.15)
        step.loss.backward()
        kd, mean = methods.create("kd", temperature=2), torch.stack(three).mean(dim=0)
        for own, found in zip(three, trained, strict=True):
            fixed = leaf(own)
            (0.7 * cross_entropy(fixed, y) + 0.15 * kd(Outputs(fixed), Outputs(mean))).backward()
            torch.testing.assert_close(found.grad, fixed.grad)

    def test_students_that_agree_have_nothing_to_learn_from_one_another(self) -> None:
        step, trained = step_of(zs, zs, zs, labels=0, ensemble=1)
        step.loss.backward()
        assert abs(step.loss.item()) < 1e-12
        assert all(logits.grad.abs().max() < 1e-12 for logits in trained)

    def test_a_probability_that_underflows_is_no_nan(self) -> None:
        saturated = 600 * torch.sign(zs)
        step, trained = step_of(saturated, -saturated, labels=1, ensemble=1)
        step.loss.backward()
        assert step.loss.isfinite()
        assert all(logits.grad.isfinite().all() for logits in trained)

    def test_each_student_has_terms_of_its_own(self, made: Any) -> None:
        found, objective, batch = made(recipe({"widths": [0.5, 0.25]}))
        step = objective(found["student"], batch, Context())
        roles = {"student", "student-2", "student-3"}
        assert set(step.terms) == {
            *(f"{term}/{role}" for term in ("cross_entropy", "kd") for role in roles),
            *(f"features/{role}" for role in roles - {"student"}),
        }
        torch.testing.assert_close(step.loss, sum(step.terms.values()))

    @pytest.mark.parametrize("method", ["kd", "dkd", "dist", "nkd"])
    def test_any_method_on_logits(self, method: str, made: Any) -> None:
        chosen = {"method": method, "options": {}, "weight": None, "cross_entropy": None}
        found, objective, batch = made(recipe(**chosen))
        step = objective(found["student"], batch, Context())
        step.loss.backward()
        assert {"student", "student-2"} <= {name.partition("/")[2] for name in step.terms}
        assert all(each.network.fc.weight.grad.abs().sum() > 0 for each in found.values())

    def test_a_sum_of_methods(self, made: Any) -> None:
        found, objective, batch = made(recipe(method=[{"method": "kd"}, {"method": "kd"}], options={}, weight=None))
        names = set(objective(found["student"], batch, Context()).terms)
        assert {"kd/student", "1/kd/student", "kd/student-2", "1/kd/student-2"} < names


class TestFeatures:
    OURS, FIRST = [S(2, 3, 4, 4), S(2, 4, 2, 2)], [T(2, 5, 4, 4), T(2, 6, 2, 2)]

    def adapters(self) -> Adapters:
        ours, first = ([tuple(each.shape[1:]) for each in features] for features in (self.OURS, self.FIRST))
        torch.manual_seed(0)
        return Adapters(Shapes(10, ours), Shapes(10, first)).double()  # type: ignore[arg-type]

    def test_by_hand(self) -> None:
        adapters = self.adapters()
        expected = 0.0
        for adapter, ours, first in zip(adapters.stages, self.OURS, self.FIRST, strict=True):
            assert isinstance(adapter, nn.Conv2d)
            assert adapter.bias is not None
            mapped = torch.einsum("oi,bihw->bohw", adapter.weight[:, :, 0, 0], ours) + adapter.bias[:, None, None]
            expected += ((first - mapped) ** 2).mean().item()
        assert_golden(adapters(self.OURS, self.FIRST), expected)

    def test_nothing_is_left_where_the_adapters_fit(self) -> None:
        adapters = self.adapters()
        first = [adapter(ours) for adapter, ours in zip(adapters.stages, self.OURS, strict=True)]
        assert adapters(self.OURS, first).item() == 0

    def test_finite_differences_confirm_the_gradient(self) -> None:
        adapters = self.adapters()
        first = [leaf(each) for each in self.FIRST]
        leaves = [leaf(each) for each in self.OURS]
        parameters = list(adapters.parameters())

        def loss(*given: Tensor) -> Tensor:
            loss: Tensor = adapters(given[:2], first)
            return loss

        assert torch.autograd.gradcheck(loss, (*leaves, *parameters), fast_mode=True)
        loss(*leaves).backward()
        assert all(each.grad is None for each in first)

    def test_the_first_student_is_not_drawn_to_the_others(self, made: Any) -> None:
        found, objective, batch = made(recipe())
        step = objective(found["student"], batch, Context())
        body = [p for name, p in found["student"].network.named_parameters() if not name.startswith(("conv1", "bn1"))]
        for term in ("features/student-2", "kd/student-2", "cross_entropy/student-2"):
            assert gradients(step.terms[term], body) == [None] * len(body)
        own = [p for name, p in found["student-2"].network.named_parameters() if name.startswith("layer1")]
        assert None not in gradients(step.terms["features/student-2"], own)

    def test_without_a_weight_there_is_no_such_term(self, made: Any) -> None:
        found, objective, batch = made(recipe({"feature_weight": 0}))
        step = objective(found["student"], batch, Context())
        assert not [name for name in step.terms if name.startswith("features")]
        assert not list(objective.adapters.parameters())

    def test_the_weight_is_a_factor(self, made: Any) -> None:
        once, twice = (made(recipe({"feature_weight": weight})) for weight in (0.15, 0.3))
        one, two = (
            objective(found["student"], batch, Context()).terms["features/student-2"]
            for found, objective, batch in (once, twice)
        )
        torch.testing.assert_close(2 * one, two)


def gradients(term: Tensor, parameters: list[Tensor]) -> list[Tensor | None]:
    return list(torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True))


class TestStem:
    @pytest.mark.parametrize("policy", ["all", "first"])
    def test_who_trains_it(self, policy: str, made: Any) -> None:
        found, objective, batch = made(recipe({"stem_gradient": policy}))
        step = objective(found["student"], batch, Context())
        stem = [found["student"].network.conv1.weight]
        for term in ("cross_entropy", "kd", "features"):
            reaches = gradients(step.terms[f"{term}/student-2"], stem)[0] is not None
            assert reaches == (policy == "all")
        for term in ("cross_entropy", "kd"):
            assert gradients(step.terms[f"{term}/student"], stem)[0] is not None

    def test_it_is_one_and_is_run_once(self, made: Any) -> None:
        found, objective, batch = made(recipe({"widths": [0.5, 0.25]}))
        first = found["student"].network
        for other in ("student-2", "student-3"):
            assert found[other].network.conv1 is first.conv1
            assert found[other].network.bn1 is first.bn1
        objective(found["student"], batch, Context())
        assert first.bn1.num_batches_tracked == 1
        assert found["student-2"].network.layer1[0].bn1.num_batches_tracked == 1

    def test_each_student_is_a_whole_network(self, made: Any) -> None:
        """What it says behind the shared stem is what it says of the images by itself."""
        found, objective, batch = made(recipe())
        objective(found["student"], batch, Context())
        objective.eval()
        found["student"].eval()
        step = objective(found["student"], batch, Context())
        for role, each in found.items():
            torch.testing.assert_close(
                step.terms[f"cross_entropy/{role}"], 0.7 * cross_entropy(each(batch.images), batch.labels)
            )

    def test_evaluation_reaches_every_student(self, made: Any) -> None:
        found, objective, _ = made(recipe())
        objective.eval()
        assert not [module for module in found["student-2"].modules() if module.training]
        objective.train()
        assert all(module.training for module in found["student-2"].modules())


def test_a_step_changes_adapters_students_and_the_stem_each_once(tmp_path: Path) -> None:
    asked = recipe()
    shop = tiny.workshop(asked, tmp_path)
    found, objective = online_ensemble._made(shop)
    train = shop.training(asked.distill, 0)
    steps = Steps(found["student"], objective, train, asked.distill, shop.decide(asked.distill))
    assert len({id(parameter) for parameter in steps.parameters}) == len(steps.parameters)
    named = dict(objective.named_parameters())
    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    assert [name for name in named if name.startswith("adapters.student-2.stages.")]
    assert {id(parameter) for parameter in named.values()} <= {id(parameter) for parameter in steps.parameters}
    steps.take(next(iter(train.epoch(0))), 0, 0)
    assert not [name for name, parameter in named.items() if torch.equal(parameter, before[name])]


def test_the_terms_weigh_what_they_would_by_hand(made: Any) -> None:
    """The features term of real networks is the mean square of what hooks see of their stages."""
    found, objective, batch = made(recipe())
    seen: dict[str, list[Tensor]] = {"student": [], "student-2": []}
    for role, classifier in found.items():
        for stage in classifier.network.stages:
            classifier.network.get_submodule(stage).register_forward_hook(
                lambda module, given, output, kept=seen[role]: kept.append(output)
            )
    term = objective(found["student"], batch, Context()).terms["features/student-2"]
    parts = [
        mse_loss(adapter(ours), wanted)
        for adapter, ours, wanted in zip(
            objective.adapters["student-2"].stages, seen["student-2"], seen["student"], strict=True
        )
    ]
    assert len(parts) == 3
    torch.testing.assert_close(term, 0.15 * sum(parts))
