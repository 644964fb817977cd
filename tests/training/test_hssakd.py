"""HSSAKD on real networks: a teacher's heads first, then the student with its own, which stay behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from kdeploy import events
from kdeploy.errors import UserError
from kdeploy.recipe.schema import Recipe
from kdeploy.training import procedures
from tests.training import tiny
from tests.training.test_resume import interrupted, weights

METHOD = {"method": "hssakd", "options": {"head_epochs": 2}}


def recipe() -> Recipe:
    return tiny.recipe(distill={**METHOD, "epochs": 3})


@pytest.fixture(scope="module")
def whole(teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished student and the same student alone."""
    folder = tmp_path_factory.mktemp("hssakd")
    shutil.copytree(teacher_folder, folder / "networks" / "teacher")
    tiny.train(tiny.workshop(recipe(), folder), "alone", "student")
    return folder


def test_the_heads_stay_behind(whole: Path) -> None:
    student, alone = weights(whole), weights(whole, "alone")
    assert list(student) == list(alone)
    assert [value.shape for value in student.values()] == [value.shape for value in alone.values()]
    assert not tiny.same(student, alone)
    cards = [json.loads((whole / "networks" / role / f"{role}.json").read_text()) for role in ("student", "alone")]
    assert cards[0]["parameters"] == cards[1]["parameters"]
    assert cards[0]["macs"] == cards[1]["macs"]


def test_each_part_of_the_loss_is_followed(whole: Path) -> None:
    lines = (whole / "networks" / "student" / "metrics.jsonl").read_text().splitlines()
    assert set(json.loads(lines[-1])["terms"]) == {"cross_entropy", "hssakd/logits", "hssakd/heads"}
    phase = (whole / "networks" / "student" / "phase-0-teacher-heads" / "metrics.jsonl").read_text().splitlines()
    first, last = json.loads(phase[0]), json.loads(phase[-1])
    assert last["train_loss"] < first["train_loss"]
    assert last["lr"] == pytest.approx(0.005)  # 0.05 after the milestone at epoch 1 of 2


def test_the_teacher_is_not_touched(whole: Path, teacher_folder: Path) -> None:
    before = load_file(teacher_folder / "teacher.safetensors")
    assert tiny.same(load_file(whole / "networks" / "teacher" / "teacher.safetensors"), before)


@pytest.mark.parametrize(("label", "after"), [("student", 2), ("student: teacher-heads", 1)])
def test_the_same_bits_after_an_interruption(run_folder: Path, whole: Path, label: str, after: int) -> None:
    assert f"{label}: continues after epoch {after} of {3 if label == 'student' else 2}" in interrupted(
        run_folder, label, after, recipe()
    )
    assert tiny.same(weights(run_folder), weights(whole))


def test_the_teacher_s_backbone_gets_no_gradient_and_keeps_its_buffers(run_folder: Path) -> None:
    """In the phase and in the student's training: the networks that the procedure has loaded."""
    shop = tiny.workshop(tiny.recipe(distill={**METHOD, "epochs": 1}), run_folder)
    load = shop.load
    loaded = []
    shop.load = lambda role: loaded.append(load(role)) or loaded[-1]  # type: ignore[method-assign,func-returns-value]
    tiny.train(shop, "student")
    (teacher,) = loaded
    assert tiny.same(teacher.state_dict(), load("teacher").state_dict())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not teacher.training


def test_in_a_sum_with_another_method(run_folder: Path) -> None:
    asked = tiny.recipe(
        distill={"method": [{"method": "kd"}, {"method": "hssakd", "options": {"head_epochs": 1}}], "epochs": 1}
    )
    tiny.train(tiny.workshop(asked, run_folder), "student")
    (line,) = (run_folder / "networks" / "student" / "metrics.jsonl").read_text().splitlines()
    assert set(json.loads(line)["terms"]) == {"cross_entropy", "kd", "hssakd/logits", "hssakd/heads"}


def test_a_teacher_cache_is_refused_before_any_work() -> None:
    asked = tiny.recipe(distill=METHOD, teacher={"cache": {}})
    with events.listening(tiny.Interrupting("nothing", 0)), pytest.raises(UserError, match=r"leave teacher\.cache out"):
        procedures.find("offline").jobs(asked)
