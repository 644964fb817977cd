"""Runs of the procedure data-free on digits: images that are made, and a student that sees nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from kdeploy import artifacts, events, pipeline, results
from kdeploy.models.storage import load_network
from kdeploy.recipe import procedures as described
from kdeploy.recipe.schema import Recipe
from kdeploy.sources import synthesised
from kdeploy.training import procedures
from kdeploy.training.synthesis.generator import Generator
from kdeploy.training.without_images import to_uint8
from tests.test_events import Heard
from tests.training import tiny, unseen

WAYS: dict[str, dict[str, Any]] = {
    "deepinversion": {"iterations": 4},
    "dafl": {"batches": 6, "latent": 16},
    "fast": {"batches": 6, "latent": 16, "iterations": 2, "warmup": 2, "every": 3},
}
LABELS = {"deepinversion": "images 2 of 2", "dafl": "student", "fast": "student"}
AFTER = {"deepinversion": 0, "dafl": 1, "fast": 1}
"""How many looks at the loss of that training the interruption waits for: in the middle of the whole."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unseen.write_folder(tmp_path_factory.mktemp("digits"))


def asked(way: str, images: Path, teacher_folder: Path, **more: Any) -> Recipe:
    told = {**WAYS[way], **more.pop("told", {})}
    options = {"synthesis": way, "images": more.pop("made", 512), way: told}
    batch = {"batch": 256} if way == "deepinversion" else {}
    return unseen.recipe(images, teacher_folder, "data-free", options, distill={**batch, **more})


@pytest.fixture(scope="module", params=WAYS)
def finished(
    request: pytest.FixtureRequest, images: Path, teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param) / "run"
    unseen.train(asked(request.param, images, teacher_folder), folder)
    return request.param, folder


def test_images_are_left_and_named(finished: tuple[str, Path]) -> None:
    way, folder = finished
    made = synthesised.read(folder)
    count = 512 if way != "fast" else (2 + -(-(12 - 2) // 4)) * 64
    assert made.what == "synthesised images"
    assert made.images.images.shape == (count, 8, 8, 1)
    assert made.images.images.std() > 5
    notes = artifacts.read_json(folder / "networks" / "student" / "notes.json")
    assert notes["figures"]["synthesis"] == way
    assert "No training image was opened" in notes["notes"][0]
    outputs = results.RunRecord.read(folder).stages["networks/student"].outputs
    assert {*synthesised.FILES, "networks/student/notes.json"} < set(outputs)


def test_eight_bits_change_nothing_of_what_the_teacher_sees(teacher_folder: Path) -> None:
    """What is stored is so near to what was made that the teacher names the same class."""
    torch.manual_seed(0)
    teacher, _ = load_network(teacher_folder)
    with torch.no_grad():
        images = Generator(16, (1, 8, 8))(4 * torch.randn(1000, 16, 1, 1))
        named, again = (teacher(given).argmax(dim=1) for given in (images, to_uint8(images).float() / 255))
    assert (named == again).double().mean() > 0.99


def test_the_student_has_learnt_and_the_teacher_has_not(finished: tuple[str, Path], teacher_folder: Path) -> None:
    _, folder = finished
    after = load_file(folder / "networks" / "teacher" / "teacher.safetensors")
    assert tiny.same(after, load_file(teacher_folder / "teacher.safetensors"))
    lines = [json.loads(line) for line in (folder / "networks" / "student" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert "kd" in lines[0]["terms"]
    assert "cross_entropy" not in lines[0]["terms"]
    assert not list((folder / "networks").rglob("state*.pt"))


@pytest.mark.parametrize("way", WAYS)
def test_the_same_bits_after_an_interruption(way: str, images: Path, teacher_folder: Path, tmp_path: Path) -> None:
    recipe = asked(way, images, teacher_folder)
    unseen.train(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt), events.listening(tiny.Interrupting(LABELS[way], AFTER[way])):
        unseen.train(recipe, tmp_path / "run")
    heard = Heard()
    with events.listening(heard):
        unseen.train(recipe, tmp_path / "run")
    assert any(": continues after epoch 1" in line for line in heard.lines)
    for name in ("networks/student/student.safetensors", "images/images.npz"):
        assert artifacts.sha256_file(tmp_path / "run" / name) == artifacts.sha256_file(tmp_path / "whole" / name)


@pytest.mark.slow
def test_a_whole_run_without_training_images(images: Path, teacher_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(images / "test", tmp_path / "digits" / "test")
    recipe = asked("fast", tmp_path / "digits", teacher_folder, epochs=3)
    run = pipeline.open_run(recipe, tmp_path / "run", device="cpu")
    pipeline.execute(run, pipeline.plan(recipe))
    found = results.read(tmp_path / "run")
    assert [row.key for row in found.rows][-1] == "student-onnxruntime-int8"
    card = artifacts.read_json(tmp_path / "run" / "export" / "student.int8-x86-avx2.json")
    assert card["calibration"]["split"] == card["agreement"]["images"] == "synthesised images"
    record = artifacts.read_json(tmp_path / "run" / "export" / "student.float32.parity.json")
    assert record["images"] == "synthesised images"
    assert "synthesised images" in found.report.read_text()


def test_options_are_filled_with_what_the_way_is_told() -> None:
    fast = described.filled("data-free", {})
    assert fast["synthesis"] == "fast"
    assert (fast["fast"]["bn"], fast["fast"]["iterations"], fast["deepinversion"]) == (10.0, 5, None)
    pixels = described.filled("data-free", {"synthesis": "deepinversion", "deepinversion": {"tv": 0.1}})
    assert (pixels["deepinversion"]["tv"], pixels["deepinversion"]["lr"], pixels["fast"]) == (0.1, 0.05, None)
    assert described.filled("data-free", pixels) == pixels


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"synthesis": "dafl", "fast": {}}, "the synthesis is dafl: leave fast out, or set synthesis to fast"),
        ({"dafl": {"lr": 1}}, "the synthesis is fast: leave dafl out"),
        ({"fast": {"jitter": 1}}, "fast.jitter of the procedure data-free: Extra inputs are not permitted"),
        ({"synthesis": "gan"}, "synthesis of the procedure data-free: Input should be 'deepinversion', 'dafl'"),
        ({"images": 10}, "images of the procedure data-free: Input should be greater than or equal to 512"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        described.filled("data-free", options)


@pytest.mark.parametrize("way", ["dafl", "fast"])
def test_a_generator_is_not_trained_by_sgd(way: str, images: Path, teacher_folder: Path) -> None:
    with pytest.raises(ValidationError, match=f"in {way} one optimiser steps the student and the generator"):
        asked(way, images, teacher_folder, optimizer="sgd")
    assert asked("deepinversion", images, teacher_folder, optimizer="sgd")


def test_jobs_and_what_is_known_without_torch(images: Path, teacher_folder: Path) -> None:
    from kdeploy.recipe.networks import networks

    recipe = asked("fast", images, teacher_folder)
    jobs = procedures.find("data-free").jobs(recipe)
    assert [one.role for one in networks(recipe)] == [job.role for job in jobs] == ["teacher", "student"]
    assert jobs[-1].needs == ("teacher",)
