"""A student that learns from noise, and a run that opens no training image."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn

from kdeploy import artifacts, events, parity, pipeline, results
from kdeploy.errors import UserError
from kdeploy.loading import Batch
from kdeploy.methods import Context
from kdeploy.models.storage import load_network
from kdeploy.recipe.networks import networks
from kdeploy.recipe.schema import Recipe
from kdeploy.report.html import render
from kdeploy.sources import synthesised
from kdeploy.sources.base import Splits
from kdeploy.training import procedures
from kdeploy.training.batchnorm import batch_statistics
from kdeploy.training.evaluate import accuracy, predict
from kdeploy.training.without_images import taught
from tests.test_events import Heard
from tests.training import tiny, unseen

OPTIONS = {"batches": 6, "evaluation_batch": 60, "recalibration": 120, "images": 512}
TEMPERATURE_1 = {"method": "kd", "options": {"temperature": 1}, "weight": 1}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unseen.write_folder(tmp_path_factory.mktemp("digits"))


def asked(images: Path, teacher_folder: Path, options: dict[str, Any] | None = None, **distill: Any) -> Recipe:
    return unseen.recipe(
        images, teacher_folder, "noise", {**OPTIONS, **(options or {})}, distill={**TEMPERATURE_1, **distill}
    )


@pytest.fixture(scope="module")
def finished(images: Path, teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run, to engines, on a folder whose training images are gone."""
    folder = tmp_path_factory.mktemp("noise")
    alone = folder / "digits"
    shutil.copytree(images / "test", alone / "test")
    recipe = asked(alone, teacher_folder)
    run = pipeline.open_run(recipe, folder / "run", device="cpu")
    pipeline.execute(run, pipeline.plan(recipe))
    return folder / "run"


def test_a_run_goes_to_engines_without_training_images(finished: Path) -> None:
    found = results.read(finished)
    assert [row.key for row in found.rows] == [
        "teacher-pytorch",
        "teacher-onnxruntime-float32",
        "student-pytorch",
        "student-onnxruntime-float32",
        "student-onnxruntime-int8",
    ]
    assert not found.failed
    assert found.bundle.is_file()
    data = artifacts.read_json(finished / "data.json")
    assert data["counts"] == {"train": 0, "validation": 0, "test": len(tiny.splits().test)}


def test_what_was_calibrated_and_compared_on_is_said_everywhere(finished: Path) -> None:
    for name in ("teacher.float32", "student.float32", "student.int8-x86-avx2"):
        record = parity.Parity.model_validate(artifacts.read_json(finished / "export" / f"{name}.parity.json"))
        assert (record.images, record.samples) == ("noise images", 256)
    card = artifacts.read_json(finished / "export" / "student.int8-x86-avx2.json")
    assert card["calibration"] == {
        "samples": 32,
        "method": "minmax",
        "bias_correction": False,
        "split": "noise images",
    }
    assert card["agreement"]["images"] == "noise images"
    assert card["agreement"]["samples"] == 256
    assert 0 <= card["agreement"]["share"] <= 1
    assert "validation" not in card
    (gate,) = (gate for gate in results.read(finished).gates if gate.name == "int8_drop_points")
    assert gate.value.endswith("% of 256 noise images")
    page = render(results.report_data(finished))
    for text in ("256 noise images", "No training image was opened", "as plain eval()", "with batch statistics"):
        assert text in page


def test_the_images_left_are_noise_as_8_bits_hold_it(finished: Path) -> None:
    made = synthesised.read(finished)
    assert made.what == "noise images"
    assert made.images.images.shape == (512, 8, 8, 1)
    assert made.images.images.dtype == np.uint8
    classifier, _ = load_network(finished / "networks" / "teacher")
    given = torch.from_numpy(made.images.images).permute(0, 3, 1, 2)
    with torch.no_grad(), batch_statistics(classifier):
        parts = [classifier(part.float() / 255).argmax(dim=1) for part in given.split(64)]
    assert (torch.cat(parts).numpy() == made.images.labels).mean() > 0.99
    card = artifacts.read_json(finished / "images" / "images.json")
    assert sum(card["teacher_calls"].values()) == 512
    assert (finished / "images" / "images.png").is_file()
    outputs = results.read(finished).record.stages["networks/student"].outputs
    assert {*synthesised.FILES, "networks/student/notes.json"} < set(outputs)


def test_three_accuracies_by_name_and_plain_is_deployed(finished: Path) -> None:
    figures = artifacts.read_json(finished / "networks" / "student" / "notes.json")["figures"]
    assert figures["batch_statistics"]["batch"] == 60
    assert figures["recalibrated"]["images"] == 120
    assert figures["deployed"] == "plain"
    epochs = artifacts.read_json(finished / "networks" / "student" / "epochs.json")
    assert epochs["last"]["test_accuracy"] == figures["plain"]["accuracy"]
    assert epochs["last"]["validation_accuracy"] is None
    row = next(row for row in results.read(finished).rows if row.key == "student-pytorch")
    assert row.accuracy == figures["plain"]["accuracy"]


def test_the_teacher_is_who_it_was(finished: Path, teacher_folder: Path) -> None:
    after = load_file(finished / "networks" / "teacher" / "teacher.safetensors")
    assert tiny.same(after, load_file(teacher_folder / "teacher.safetensors"))


def test_recalibrated_statistics_are_deployed_where_that_is_asked_for(
    images: Path, teacher_folder: Path, tmp_path: Path
) -> None:
    """The training files in this folder are broken: whoever opens one is told."""
    heard = Heard()
    with events.listening(heard):
        unseen.train(asked(images, teacher_folder, {"deploy": "recalibrated"}), tmp_path / "run")
        run = unseen.train(asked(images, teacher_folder), tmp_path / "plain")
    assert any("measured on 120 unlabelled test images" in line and "transductive" in line for line in heard.lines)
    figures, plain = (
        artifacts.read_json(tmp_path / name / "networks" / "student" / "notes.json")["figures"]
        for name in ("run", "plain")
    )
    assert {**figures, "deployed": "plain"} == plain
    student, _ = load_network(tmp_path / "run" / "networks" / "student")
    score = accuracy(*predict(student, run.workshop.validation("test"), run.workshop.decide(run.recipe.distill)))
    assert score == pytest.approx(figures["recalibrated"]["accuracy"])
    first = load_file(tmp_path / "run" / "networks" / "student" / "student.safetensors")
    second = load_file(tmp_path / "plain" / "networks" / "student" / "student.safetensors")
    assert {key for key in first if not torch.equal(first[key], second[key])} == {
        key for key in first if "running" in key or "tracked" in key
    }


def test_the_same_bits_after_an_interruption(images: Path, teacher_folder: Path, tmp_path: Path) -> None:
    recipe = asked(images, teacher_folder, epochs=3)
    unseen.train(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt), events.listening(tiny.Interrupting("student", 2)):
        unseen.train(recipe, tmp_path / "run")
    heard = Heard()
    with events.listening(heard):
        unseen.train(recipe, tmp_path / "run")
    assert any(line.startswith("student: continues after epoch 2 of 3") for line in heard.lines)
    names = ("networks/student/student.safetensors", "images/images.npz", "networks/student/notes.json")
    for name in names:
        assert artifacts.sha256_file(tmp_path / "run" / name) == artifacts.sha256_file(tmp_path / "whole" / name)


def workshop(recipe: Recipe, folder: Path, teacher_folder: Path) -> Any:
    shutil.copytree(teacher_folder, folder / "networks" / "teacher")
    return tiny.workshop(recipe, folder, Splits.test_alone(tiny.splits().test))


@pytest.mark.parametrize("method", [TEMPERATURE_1, {"method": "dkd"}, {"method": "dist"}, {"method": "at"}])
def test_any_method_that_needs_no_more_than_outputs(
    method: dict[str, Any], images: Path, teacher_folder: Path, tmp_path: Path
) -> None:
    recipe = unseen.recipe(images, teacher_folder, "noise", OPTIONS, distill=method)
    shop = workshop(recipe, tmp_path, teacher_folder)
    teacher, student = shop.load("teacher"), shop.make(recipe.student, 0)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    objective = taught(shop, teacher, student, by_batch=True)
    batch = Batch(torch.randn(32, 1, 8, 8), torch.full((32,), -1), torch.arange(32))
    step = objective(student.train(), batch, Context())
    step.loss.backward()
    assert "cross_entropy" not in step.terms
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert tiny.same(teacher.state_dict(), before)
    with torch.no_grad(), batch_statistics(teacher):
        assert torch.equal(step.labels, teacher(batch.images).argmax(dim=1))


def test_a_student_that_is_its_teacher_has_nothing_to_learn(images: Path, teacher_folder: Path, tmp_path: Path) -> None:
    recipe = asked(images, teacher_folder)
    shop = workshop(recipe, tmp_path, teacher_folder)
    teacher, student = shop.load("teacher"), shop.load("teacher").double().requires_grad_(True)
    teacher = teacher.double()
    objective = taught(shop, teacher, student, by_batch=True)
    batch = Batch(torch.randn(64, 1, 8, 8).double(), torch.full((64,), -1), torch.arange(64))
    step = objective(student.train(), batch, Context())
    step.loss.backward()
    assert abs(step.loss.item()) < 1e-10
    assert max(parameter.grad.abs().max().item() for parameter in student.parameters()) < 1e-10


def test_the_loss_has_the_gradient_of_soft_cross_entropy(images: Path, teacher_folder: Path, tmp_path: Path) -> None:
    """The paper's loss, by hand."""
    recipe = asked(images, teacher_folder)
    shop = workshop(recipe, tmp_path, teacher_folder)
    teacher, student = shop.load("teacher").double(), shop.make(recipe.student, 0).double().train()
    batch = Batch(torch.randn(64, 1, 8, 8).double(), torch.full((64,), -1), torch.arange(64))
    found = torch.autograd.grad(
        taught(shop, teacher, student, by_batch=True)(student, batch, Context()).loss, list(student.parameters())
    )
    with torch.no_grad(), batch_statistics(teacher):
        soft = teacher(batch.images).softmax(dim=1)
    by_hand = -(soft * student(batch.images).log_softmax(dim=1)).sum(dim=1).mean()
    for one, other in zip(found, torch.autograd.grad(by_hand, list(student.parameters())), strict=True):
        torch.testing.assert_close(one, other)


def test_a_teacher_names_more_classes_by_batch_statistics(teacher_folder: Path) -> None:
    """The cause that the paper names: by running statistics noise looks all the same."""
    teacher, _ = load_network(teacher_folder)
    noise = torch.randn(512, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * teacher.std + teacher.mean
    with torch.no_grad():
        running = teacher(noise).softmax(dim=1).mean(dim=0)
        with batch_statistics(teacher):
            by_batch = teacher(noise).softmax(dim=1).mean(dim=0)
    assert torch.special.entr(by_batch).sum() > torch.special.entr(running).sum() + 0.1


@pytest.mark.parametrize("method", ["crd", "factor-transfer", "simkd"])
def test_a_method_that_needs_training_images_is_refused_before_any_work(
    method: str, images: Path, teacher_folder: Path
) -> None:
    with pytest.raises(UserError, match=f"^{method} needs the training images, .* procedure noise has none of these"):
        procedures.find("noise").jobs(
            unseen.recipe(images, teacher_folder, "noise", OPTIONS, distill={"method": method})
        )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"distill": {"baseline": "alone"}}, "the student alone would need training images: set distill.baseline"),
        ({"distill": {"cross_entropy": 0.1}}, "there are no labels for cross-entropy: leave distill.cross_entropy out"),
        ({"distill": {"select": "validation"}}, "there are no validation images to choose an epoch on: set"),
        ({"distill": {"readout": {"epochs": 1}}}, "a readout needs labels: leave distill.readout out"),
        ({"teacher": {"train": {}}}, "teacher.train needs training images: leave it out and set teacher.checkpoint"),
        ({"teacher": {"cache": {}}}, "teacher.cache holds what the teacher says of training images"),
        ({"teacher": {"normalize": None}}, "data.normalize: train cannot be measured: give its mean and std, or set"),
        ({"data": {"augment": {"mixup": 1.0}}}, "data.augment mixes training images: set mixup and cutmix to 0"),
        ({"distill": {"procedure_options": {"batch": 3}}}, "the procedure noise has no option 'batch'"),
    ],
)
def test_what_needs_training_images_is_refused(
    changes: dict[str, Any], sentence: str, images: Path, teacher_folder: Path
) -> None:
    content = asked(images, teacher_folder).model_dump(mode="json")
    for section, values in changes.items():
        content[section] |= values
    with pytest.raises(ValidationError, match=sentence):
        Recipe.model_validate(content)


def test_a_teacher_without_batch_norms_is_refused(images: Path, teacher_folder: Path, tmp_path: Path) -> None:
    recipe = asked(images, teacher_folder)
    shop = workshop(recipe, tmp_path, teacher_folder)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    student = shop.make(recipe.student, 0)
    student.network = plain
    shop.make = lambda spec, seed: student
    with pytest.raises(UserError, match=r"^The student resnet8 has no batch normalisation"):
        procedures.find("noise").jobs(recipe)[-1].run(shop)


def test_what_is_known_without_torch_are_the_jobs(images: Path, teacher_folder: Path) -> None:
    recipe = asked(images, teacher_folder)
    known = networks(recipe)
    jobs = procedures.find("noise").jobs(recipe)
    assert [one.role for one in known] == [job.role for job in jobs] == ["teacher", "student"]
    assert known[-1].deployed
    assert known[-1].batches == 6


def test_a_dry_run_counts_batches_of_noise(
    images: Path, teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdeploy.estimate import _Timing, estimate

    recipe = asked(images, teacher_folder)
    monkeypatch.setattr(_Timing, "_time", lambda _, network, spec, train: 1.0)
    plan = estimate(recipe, tmp_path / "run", [], "cpu")
    (student,) = (step for step in plan.steps if step.stage == "networks/student")
    assert student.seconds == 2 * 6 * (1 + 1)  # epochs and batches; student and teacher


def test_resolved_options_are_written_down(finished: Path) -> None:
    text = (finished / "recipe.yaml").read_text()
    assert "teacher_statistics: batch" in text
    assert "deploy: plain" in text
