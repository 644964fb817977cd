"""Noise and data-free on digits: what a student can know that saw no image."""

from __future__ import annotations

import shutil
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from kdeploy import artifacts
from kdeploy.sources.base import Splits
from tests.training import tiny
from tests.training.effects.digits import TRAIN, accuracy, network, recipe, splits, train

SEEDS = (0, 1)
STUDENT = {"optimizer": "adam", "lr": 0.005, "weight_decay": 0, "precision": "float32", "baseline": "none"}
NOISE = {"batches": 25, "evaluation_batch": 250, "recalibration": 500, "images": 512}
DEEPINVERSION = {"synthesis": "deepinversion", "images": 1024, "deepinversion": {"iterations": 60}}
DAFL = {"synthesis": "dafl", "images": 512, "dafl": {"batches": 25, "latent": 64}}
QUICK = {"batches": 40, "latent": 64, "iterations": 5, "warmup": 8, "every": 10}
FAST = {"synthesis": "fast", "images": 1024, "fast": QUICK}


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`networks/teacher`, which has learnt from all 809 training images."""
    folder = tmp_path_factory.mktemp("teacher")
    teacher = network(0.5, train={**TRAIN, "epochs": 12})
    train(recipe(0, None, teacher=teacher, student=network(0.25), distill=TRAIN), folder, "teacher")
    return folder / "networks" / "teacher"


def taught(
    seed: int, teacher_folder: Path, folder: Path, procedure: str, own: dict[str, Any], **distill: Any
) -> tuple[float, dict[str, Any]]:
    """The accuracy of a student that sees no training image, and the figures of its notes; own: procedure's options."""
    shutil.copytree(teacher_folder, folder / "networks" / "teacher")
    card = artifacts.read_json(teacher_folder / "teacher.json")
    weights = {"checkpoint": str(teacher_folder / "teacher.safetensors")}
    teacher = network(0.5, **weights, normalize={"mean": card["mean"], "std": card["std"]})
    how = {"procedure": procedure, "procedure_options": own, "method": "kd", "weight": 1, **STUDENT, **distill}
    asked = recipe(seed, None, teacher=teacher, student=network(0.25), distill=how)
    shop = tiny.workshop(asked, folder, Splits.test_alone(splits(None).test))
    tiny.train(shop, "student")
    return accuracy(shop, "student"), artifacts.read_json(folder / "networks" / "student" / "notes.json")["figures"]


@pytest.mark.slow
def test_noise_teaches_more_by_batch_statistics(teacher_folder: Path, tmp_path: Path) -> None:
    """The paper: noise teaches next to nothing by a teacher's running statistics, and much by those of the batch.

    Seen, though running statistics do better than next to nothing: of 64 gray pixels noise makes something nearer to
    digits than it makes to photographs of 3,072. Measured, teacher 96.9 %, chance 10 %, the student evaluated with

    | teacher by | seed | batch statistics | recalibrated | plain |
    |:--|--:|--:|--:|--:|
    | batch | 0 | 58.7 | 57.9 | 51.2 |
    | batch | 1 | 61.0 | 61.0 | 55.5 |
    | running | 0 | 38.2 | 37.6 | 33.7 |
    | running | 1 | 41.2 | 41.1 | 39.9 |
    """
    found: dict[str, list[dict[str, Any]]] = {"batch": [], "running": []}
    told = {"epochs": 8, "batch": 64, "options": {"temperature": 1}}
    for statistics, students in found.items():
        for seed in SEEDS:
            own = {**NOISE, "teacher_statistics": statistics}
            folder = tmp_path / f"{statistics}-{seed}"
            students.append(taught(seed, teacher_folder, folder, "noise", own, **told)[1])
    reached = {
        statistics: {
            form: mean(one[form]["accuracy"] for one in students)
            for form in ("batch_statistics", "recalibrated", "plain")
        }
        for statistics, students in found.items()
    }
    batch, running = reached["batch"], reached["running"]
    assert all(batch[form] > running[form] + 0.08 for form in batch), reached
    assert batch["recalibrated"] > batch["plain"] + 0.02, reached
    assert abs(batch["recalibrated"] - batch["batch_statistics"]) < 0.04, reached


@pytest.mark.slow
@pytest.mark.parametrize(
    ("own", "distill", "least"),
    [
        (DEEPINVERSION, {"epochs": 30, "batch": 256, "options": {"temperature": 4}}, 0.3),
        (DAFL, {"epochs": 8, "batch": 64, "options": {"temperature": 1}}, 0.2),
        (FAST, {"epochs": 8, "batch": 64, "options": {"temperature": 4}}, 0.3),
    ],
    ids=["deepinversion", "dafl", "fast"],
)
def test_a_student_learns_digits_it_never_saw(
    own: dict[str, Any], distill: dict[str, Any], least: float, teacher_folder: Path, tmp_path: Path
) -> None:
    """The papers: a student learns on images made from its teacher, and more than on noise.

    Each is far above chance, 10 %. Measured by seed 0 and 1: DeepInversion 48.7, 49.2 %, fast 58.5, 48.9 %, DAFL 32.3,
    32.3 %. Noise as the papers have it beside them, the teacher using its running statistics, gives 33.7, 39.9 % (the
    test above): DeepInversion and fast lead it, DAFL, which a narrow student does not suit, does not. That they lead
    noise by batch statistics, 51.2 and 55.5 %, was not seen at this size. (Their steps and batches are not the same.)
    """
    reached, figures = taught(0, teacher_folder, tmp_path, "data-free", own, **distill)
    assert reached > least
    assert min(figures["teacher_calls"]) > 0, "some digit was never made"
