"""What a training minimises, against a computation by hand in NumPy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kdeploy import methods
from kdeploy.loading import Batch, Mixed
from kdeploy.methods import Context, Method, Outputs
from kdeploy.models.classifier import Classifier
from kdeploy.training.objective import CrossEntropy, Distillation, Lesson
from kdeploy.training.teaching import Live
from kdeploy.training.views import View, survey

Array = NDArray[np.float64]
CLASSES = 5


class Linear(nn.Module):
    """A network of one layer, in float64."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.fc = nn.Linear(4, CLASSES, dtype=torch.float64)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.fc(images.flatten(1))
        return out


class Constant(Method):
    """A method whose only term is always the same number."""

    def __init__(self, *, value: float) -> None:
        super().__init__()
        self.value = value

    def terms(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        return {"constant": student.logits.sum() * 0 + self.value}


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(7)
    return Batch(torch.rand(6, 1, 2, 2, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4, 0]), torch.arange(6))


@pytest.fixture
def student() -> Classifier:
    return Classifier(Linear(1), [0.0], [1.0])


@pytest.fixture
def teacher() -> Classifier:
    return Classifier(Linear(2), [0.0], [1.0]).eval()


def distillation(
    student: Classifier, teacher: Classifier, weighted: list[tuple[Method, float]], **more: Any
) -> Distillation:
    needs = [method.needs for method, _ in weighted]
    ours, theirs = survey(student, teacher, needs, shape=(1, 2, 2), classes=CLASSES)
    teaching = Live(teacher, View(teacher, theirs, needs, "teacher"))
    cross_entropy = more.pop("cross_entropy")
    return Distillation([Lesson(teaching, weighted, View(student, ours, needs, "student"))], cross_entropy, **more)


def log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def numpy_logits(network: nn.Module, batch: Batch) -> Array:
    with torch.no_grad():
        return np.asarray(network(batch.images).numpy())


def cross_entropy(logits: Array, labels: NDArray[np.int64], smoothing: float = 0.0) -> float:
    target = np.eye(CLASSES)[labels] * (1 - smoothing) + smoothing / CLASSES
    return float(-(target * log_softmax(logits)).sum(axis=1).mean())


def divergence(student: Array, teacher: Array, temperature: float) -> float:
    ours, theirs = log_softmax(student / temperature), log_softmax(teacher / temperature)
    return float(temperature**2 * (np.exp(theirs) * (theirs - ours)).sum(axis=1).mean())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(student: Classifier, batch: Batch, smoothing: float) -> None:
    step = CrossEntropy(smoothing)(student, batch, Context())
    expected = cross_entropy(numpy_logits(student, batch), batch.labels.numpy(), smoothing)
    assert step.loss.item() == pytest.approx(expected, rel=1e-12)
    assert step.terms == {"cross_entropy": step.loss}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_and_kd(student: Classifier, teacher: Classifier, batch: Batch, smoothing: float) -> None:
    method = methods.create("kd", temperature=4.0)
    objective = distillation(student, teacher, [(method, 0.9)], cross_entropy=0.1, label_smoothing=smoothing)
    step = objective(student, batch, Context())
    ours, theirs = numpy_logits(student, batch), numpy_logits(teacher, batch)
    hard = 0.1 * cross_entropy(ours, batch.labels.numpy(), smoothing)
    soft = 0.9 * divergence(ours, theirs, 4.0)
    assert {name: value.item() for name, value in step.terms.items()} == pytest.approx(
        {"cross_entropy": hard, "kd": soft}, rel=1e-12
    )
    assert step.loss.item() == pytest.approx(hard + soft, rel=1e-12)


def test_without_a_weight_there_is_no_cross_entropy(student: Classifier, teacher: Classifier, batch: Batch) -> None:
    step = distillation(student, teacher, [(methods.create("kd"), 1.0)], cross_entropy=0.0)(student, batch, Context())
    assert list(step.terms) == ["kd"]


def test_the_same_method_twice_counts_twice(student: Classifier, teacher: Classifier, batch: Batch) -> None:
    weighted: list[tuple[Method, float]] = [
        (Constant(value=2.0), 3.0),
        (Constant(value=5.0), 7.0),
        (Constant(value=1.0), 1.0),
    ]
    step = distillation(student, teacher, weighted, cross_entropy=0.0)(student, batch, Context())
    assert step.loss.item() == pytest.approx(2 * 3 + 5 * 7 + 1)
    assert len(step.terms) == 3


def test_the_teacher_is_neither_trained_nor_kept(student: Classifier, teacher: Classifier, batch: Batch) -> None:
    objective = distillation(student, teacher, [(methods.create("kd"), 1.0)], cross_entropy=0.0)
    assert not list(objective.parameters())
    assert not objective.state_dict()
    objective(student, batch, Context()).loss.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in student.parameters())
    objective.train()
    assert not teacher.training


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixed_images_count_for_both_labels_in_their_shares(
    batch: Batch, student: Classifier, smoothing: float
) -> None:
    partner = torch.tensor([3, 4, 5, 0, 1, 2])
    mixed = replace(batch, mixed=Mixed(partner, 0.7))
    found = CrossEntropy(smoothing)(student, mixed, Context()).loss.item()
    soft = 0.7 * np.eye(CLASSES)[batch.labels.numpy()] + 0.3 * np.eye(CLASSES)[batch.labels[partner].numpy()]
    soft = (1 - smoothing) * soft + smoothing / CLASSES
    logits = student(batch.images).detach().numpy()
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert found == pytest.approx(-(soft * logs).sum(axis=1).mean(), rel=1e-12)
