"""What a student minimises that has labels for some rows of a batch and a teacher's for the others, row by row."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdeploy import events, methods
from kdeploy.loading import Batch
from kdeploy.methods import Context
from kdeploy.models.classifier import Classifier
from kdeploy.sources.labelling import HIDDEN
from kdeploy.training.objective import Lesson, Step
from kdeploy.training.teaching import Live
from kdeploy.training.totals import Totals
from kdeploy.training.unlabelled import Compared, FewLabels, Mixed, Plain, Reliability, Weighted, Weighting
from kdeploy.training.views import View, survey
from tests.test_events import Heard
from tests.training.test_several_teachers import CLASSES, linear

LABELS = torch.tensor([0, HIDDEN, HIDDEN, 3, HIDDEN, 1])
HIDES = LABELS == HIDDEN
ALL_HIDDEN = torch.full((6,), HIDDEN)


def batch(labels: Tensor = LABELS) -> Batch:
    images = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return Batch(images, labels, torch.arange(6))


def lesson(student: Classifier, teacher: Classifier, name: str = "kd", weight: float = 1.0) -> Lesson:
    method = methods.create(name, **({"temperature": 1.0} if name == "kd" else {}))
    ours, theirs = survey(student, teacher, [method.needs], shape=(1, 2, 2), classes=CLASSES)
    teaching = Live(teacher, View(teacher, theirs, [method.needs], "teacher"))
    return Lesson(teaching, [(method, weight)], View(student, ours, [method.needs], "student"))


class Asked:
    """Says something else each time that it is asked, first of the teacher, and counts how often it was."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, network: nn.Module) -> Compared:
        generator = torch.Generator().manual_seed(self.count)
        self.count += 1
        return Compared(2 * torch.randn(9, CLASSES, generator=generator), torch.rand(6, generator=generator))


def weighted(student: Classifier, teacher: Classifier, ask: Asked | None = None, **schedule: Any) -> Weighted:
    when = {"warm_up_epochs": 0, "refresh": True, "neighbours": None, **schedule}
    return Weighted(
        lesson(student, teacher),
        1.0,
        form="soft",
        ask=ask or Asked(),
        teacher=teacher,
        labels=torch.arange(9) % CLASSES,
        known=LABELS,
        weighting=Weighting(**when),
    )


def mixed(student: Classifier, teacher: Classifier, least: float, **more: Any) -> Mixed:
    reliability = Reliability(torch.randn(9, CLASSES), torch.arange(9) % CLASSES, least=least, top_k=3)
    return Mixed(lesson(student, teacher), 1.0, reliability=reliability, **{"form": "soft", **more})


def gradient(student: Classifier, objective: FewLabels, given: Batch | None = None) -> Tensor:
    (found,) = torch.autograd.grad(step_of(student, objective, given).loss, [student.network[1].weight])
    return found


def step_of(student: Classifier, objective: FewLabels, given: Batch | None = None) -> Step:
    return objective(student, given or batch(), Context())


def test_labelled_rows_have_cross_entropy_and_the_others_the_teachers_labels() -> None:
    student, teacher = linear(1), linear(2)
    step = step_of(student, Plain(lesson(student, teacher, weight=0.8), 0.3))
    images = batch().images
    log_f, log_t = (network(images).log_softmax(dim=1) for network in (student, teacher))
    own = sum(-log_f[row, LABELS[row]] for row in (0, 3, 5))
    others = sum((log_t[row].exp() * (log_t[row] - log_f[row])).sum() for row in (1, 2, 4))
    torch.testing.assert_close(step.loss, (0.3 * own + 0.8 * others) / 6)
    torch.testing.assert_close(step.terms["cross_entropy"], 0.3 * own / 6)
    assert step.logits.shape == (6, CLASSES)


def test_plain_weighted_and_mixed_are_one_where_the_teacher_is_never_doubted() -> None:
    student, teacher = linear(1), linear(2)
    plain = gradient(student, Plain(lesson(student, teacher), 1.0))
    trusting = [mixed(student, teacher, 1.0, normalized=normalized) for normalized in (False, True)]
    for other in (weighted(student, teacher), *trusting):
        torch.testing.assert_close(gradient(student, other), plain, rtol=1e-6, atol=1e-8)
    assert not torch.allclose(gradient(student, mixed(student, teacher, 0.6)), plain)


def test_no_gradient_passes_through_a_weight() -> None:
    """The gradient is that of a weighted sum: w * (f - teacher's label) * image."""
    student, teacher = linear(1), linear(2)
    objective = weighted(student, teacher)
    objective.begin_epoch(student, 0)
    weights = objective.weights.double()
    assert (weights < 1).any()
    given = batch(ALL_HIDDEN)
    pixels = given.images.flatten(1)
    residual = student(given.images).softmax(dim=1) - teacher(given.images).softmax(dim=1)
    torch.testing.assert_close(gradient(student, objective, given), (weights[:, None] * residual).T @ pixels / 6)
    assert not objective.weights.requires_grad


def test_a_row_weighs_the_same_in_whatever_batch_it_comes() -> None:
    """So that processes with a part of a batch each make the step of the whole."""
    student, teacher = linear(1), linear(2)
    rows = batch()
    parts = [Batch(rows.images[part], rows.labels[part], rows.index[part]) for part in (slice(4), slice(4, 6))]
    for objective in (Plain(lesson(student, teacher), 1.0), weighted(student, teacher), mixed(student, teacher, 0.7)):
        whole = step_of(student, objective).loss
        torch.testing.assert_close(sum(step_of(student, objective, part).loss * len(part) for part in parts) / 6, whole)


def test_twice_as_many_rows_of_half_the_weight_are_the_same_sum() -> None:
    student, teacher = linear(1), linear(2)
    objective = weighted(student, teacher)
    objective.begin_epoch(student, 0)
    once = step_of(student, objective).terms["weighted"] * 6
    rows = batch()
    twice = Batch(rows.images.repeat(2, 1, 1, 1), rows.labels.repeat(2), rows.index.repeat(2))
    objective.weights /= 2
    torch.testing.assert_close(step_of(student, objective, twice).terms["weighted"] * 12, once)


def test_a_batch_without_unlabelled_rows_has_cross_entropy_only() -> None:
    student, teacher = linear(1), linear(2)
    known = batch(torch.tensor([0, 1, 2, 3, 0, 1]))
    expected = nn.functional.cross_entropy(student(known.images), known.labels)
    step = step_of(student, Plain(lesson(student, teacher), 1.0), known)
    assert list(step.terms) == ["cross_entropy"]
    for objective in (Plain(lesson(student, teacher), 1.0), weighted(student, teacher), mixed(student, teacher, 0.6)):
        torch.testing.assert_close(step_of(student, objective, known).loss, expected)


def test_a_batch_without_labels_has_the_teachers_only() -> None:
    student, teacher = linear(1), linear(2)
    for objective in (Plain(lesson(student, teacher), 1.0), weighted(student, teacher), mixed(student, teacher, 0.6)):
        step = step_of(student, objective, batch(ALL_HIDDEN))
        assert step.terms["cross_entropy"] == 0
        assert step.loss > 0


def test_one_row_is_nothing_to_compare() -> None:
    student, teacher = linear(1), linear(2)
    objective = Plain(lesson(student, teacher, "dist"), 1.0)
    assert len(step_of(student, objective).terms) > 1
    step = step_of(student, objective, batch(torch.tensor([0, 1, HIDDEN, 3, 0, 1])))
    assert list(step.terms) == ["cross_entropy"]
    assert math.isfinite(step.loss.item())


def test_hard_labels_are_the_teachers_likeliest_class() -> None:
    student, teacher = linear(1), linear(2)
    given = batch(ALL_HIDDEN)
    step = step_of(student, mixed(student, teacher, 1.0, form="hard"), given)
    expected = nn.functional.cross_entropy(student(given.images), teacher(given.images).argmax(dim=1))
    torch.testing.assert_close(step.loss, expected)


@pytest.mark.parametrize(("refresh", "asked"), [(True, [2, 3, 4]), (False, [2])])
def test_weights_are_estimated_behind_the_warm_up(refresh: bool, asked: list[int]) -> None:
    student, teacher, ask = linear(1), linear(2), Asked()
    objective = weighted(student, teacher, ask, warm_up_epochs=2, refresh=refresh)
    assert ask.count == 1, "the teacher, once"
    when = []
    for epoch in range(5):
        before = ask.count
        objective.begin_epoch(student, epoch)
        when += [epoch] * (ask.count - before)
        assert bool((objective.weights == 1).all()) == (epoch < 2)
    assert when == asked
    assert (objective.weights[~HIDES] == 1).all()
    assert ((objective.weights > 0) & (objective.weights <= 1)).all()


def test_what_weights_are_worth_is_said() -> None:
    student, heard = linear(1), Heard()
    objective = weighted(student, linear(2))
    with events.listening(heard):
        objective.begin_epoch(student, 3)
    found = objective.weights[HIDES].double()
    share = float(found.sum() ** 2 / (3 * found.square().sum()))
    assert heard.lines == [f"weights of epoch 4: mean {found.mean():.2f}, as much as {share:.0%} of 3 images"]


def test_weights_and_reliability_are_in_a_checkpoint() -> None:
    student, teacher = linear(1), linear(2)
    assert list(weighted(student, teacher).state_dict()) == ["weights"]
    assert list(mixed(student, teacher, 0.6).state_dict()) == ["reliability.margins", "reliability.hits"]


def test_training_accuracy_is_that_of_the_labelled_images() -> None:
    totals = Totals(torch.device("cpu"))
    logits = torch.eye(4)[[0, 1, 2, 2, 0, 1]]
    totals.add(Step(torch.tensor(1.0), {}, logits), LABELS, None)
    assert totals.mean_accuracy() == pytest.approx(2 / 3)
    totals.add(Step(torch.tensor(1.0), {}, logits), ALL_HIDDEN, None)
    assert totals.mean_accuracy() == pytest.approx(2 / 3)
    again = Totals(torch.device("cpu"))
    again.load_state_dict(totals.state_dict())
    assert (again.mean_accuracy(), again.mean_loss(), again.seen) == (totals.mean_accuracy(), 1.0, 12)
    again.add(Step(torch.tensor(1.0), {}, logits), LABELS, torch.tensor(False))
    assert again.mean_accuracy() == totals.mean_accuracy()
