"""Several teachers of one student: averaged by weight, or one drawn for each batch."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from kdeploy import methods
from kdeploy.errors import UserError
from kdeploy.loading import Batch
from kdeploy.methods import Context
from kdeploy.models.classifier import Classifier
from kdeploy.models.storage import load_network
from kdeploy.recipe.schema import Recipe
from kdeploy.training.ensemble import together
from kdeploy.training.objective import Distillation, Lesson
from kdeploy.training.teaching import Live
from kdeploy.training.views import View, survey
from tests.training import tiny

CLASSES = 4


def linear(seed: int) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(4, CLASSES)), [0.0], [1.0]).double()


def batch() -> Batch:
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(6, 1, 2, 2, generator=generator, dtype=torch.float64)
    return Batch(images, torch.arange(6) % CLASSES, torch.arange(6))


def lesson(student: Classifier, teacher: nn.Module, share: float = 1.0, name: str = "") -> Lesson:
    method = methods.create("kd", temperature=1.0)
    ours, theirs = survey(student, linear(0), [method.needs], shape=(1, 2, 2), classes=CLASSES)
    teaching = Live(teacher, View(linear(0), theirs, [method.needs], "teacher"))
    return Lesson(teaching, [(method, 1.0)], View(student, ours, [method.needs], "student"), share, name)


def gradient(student: Classifier, objective: Distillation, step: int = 0) -> torch.Tensor:
    loss = objective(student, batch(), Context(step=step)).loss
    (found,) = torch.autograd.grad(loss, [student.network[1].weight])
    return found


def test_the_average_of_kd_has_the_gradient_of_the_mean_of_the_probabilities() -> None:
    student, first, second = linear(1), linear(2), linear(3)
    apart = Distillation([lesson(student, first, 0.75), lesson(student, second, 0.25, "teacher-2/")], 0.0)
    mean = together({"teacher": first, "teacher-2": second}, {"teacher": 0.75, "teacher-2": 0.25})
    averaged = Distillation([lesson(student, mean.double())], 0.0)
    torch.testing.assert_close(gradient(student, apart), gradient(student, averaged), rtol=1e-6, atol=1e-7)
    terms = apart(student, batch(), Context()).terms
    assert set(terms) == {"kd", "teacher-2/kd"}


def test_one_is_drawn_by_weight_and_the_same_one_for_the_same_step() -> None:
    student, first, second = linear(1), linear(2), linear(3)
    lessons = [lesson(student, first, 0.75), lesson(student, second, 0.25, "teacher-2/")]
    drawing = Distillation(lessons, 0.0, draw=7)
    drawn = Counter(next(iter(drawing(student, batch(), Context(step=step)).terms)) for step in range(400))
    assert drawn["kd"] == pytest.approx(300, abs=35)  # four standard deviations
    assert drawn["teacher-2/kd"] == 400 - drawn["kd"]
    again = Distillation(lessons, 0.0, draw=7)
    for step in range(5):
        (name,) = drawing(student, batch(), Context(step=step)).terms
        assert set(again(student, batch(), Context(step=step)).terms) == {name}
        alone = Distillation([lesson(student, first if name == "kd" else second)], 0.0)
        torch.testing.assert_close(gradient(student, drawing, step), gradient(student, alone, step))


def recipe(**more: Any) -> Recipe:
    teacher = {**tiny.NETWORK, "width": 0.5, "train": {**tiny.TRAIN, "epochs": 12, "lr": 0.1}}
    return tiny.recipe(teachers=[{**teacher, "seed": 1, "width": 0.25, "weight": 3}], **more)


def test_two_teachers_of_different_width_teach_one_student(tmp_path: Path) -> None:
    asked = recipe(distill={"method": [{"method": "kd"}, {"method": "fitnet"}], "epochs": 1})
    shop = tiny.workshop(asked, tmp_path)
    tiny.train(shop, "teacher", "teacher-2", "student")
    assert load_network(tmp_path / "networks" / "teacher-2")[1]["width"] == 0.25
    lines = (tmp_path / "networks" / "student" / "metrics.jsonl").read_text().splitlines()
    terms = json.loads(lines[-1])["terms"]
    assert set(terms) == {"cross_entropy", "kd", "fitnet", "teacher-2/kd", "teacher-2/fitnet"}
    history = json.loads((tmp_path / "networks" / "student" / "history.json").read_text())
    assert 0 < history["teacher_agreement"] <= 1


@pytest.mark.parametrize("teaching", ["average", "draw"])
def test_a_cache_of_all_teachers_gives_the_losses_of_asking_them_live(tmp_path: Path, teaching: str) -> None:
    distill = {"epochs": 2, "teaching": teaching}
    views = {"cache": {"views": 2, "dtype": "float32", "folder": str(tmp_path / "cache")}}
    losses = []
    for name, more in (("live", {}), ("cached", views)):
        shop = tiny.workshop(recipe(distill=distill, teacher=more), tmp_path / name)
        tiny.train(shop, "teacher", "teacher-2", "student")
        lines = (tmp_path / name / "networks" / "student" / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["train_loss"] for line in lines])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"teachers": [], "distill": {"teaching": "draw"}}, "add `teachers`"),
        ({"teachers": [], "teacher": {"weight": 2}}, "add `teachers`"),
        ({"teacher": {"width": 0.25, "seed": 1}}, "would be the same network"),
        ({"distill": {"procedure": "assistants", "assistants": [tiny.NETWORK]}}, "has one teacher: leave teachers out"),
    ],
)
def test_what_does_not_go_together_is_refused(changed: dict[str, Any], expected: str) -> None:
    others = recipe().model_dump(mode="json")["teachers"]
    with pytest.raises(ValidationError, match=expected):
        tiny.recipe(**{"teachers": others, **changed})


def test_one_classifier_cannot_be_borrowed_from_two(tmp_path: Path) -> None:
    shop = tiny.workshop(recipe(distill={"method": "simkd"}), tmp_path)
    with pytest.raises(UserError, match="borrows the classifier of one teacher"):
        tiny.train(shop, "teacher")
