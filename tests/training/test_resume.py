"""A training that was interrupted ends as if it had not been: the same bits."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from kdeploy import events
from kdeploy.training import state
from tests.training import tiny

THEIRS = '''
import torch.nn.functional as F
from torch import nn
from kdeploy.methods import Method, Phase

class Paraphrased(Method):
    """A translator of the student's logits follows an encoder of the teacher's, which is trained before."""

    def __init__(self, *, width: int = 4, phase: str = "paraphraser", scale: float = 1.0) -> None:
        super().__init__()
        self.width, self.phase, self.scale = width, phase, scale

    def build(self, student, teacher):
        self.encoder = nn.Linear(teacher.classes, self.width)
        self.decoder = nn.Linear(self.width, teacher.classes)
        self.translator = nn.Linear(student.classes, self.width)

    def phases(self):
        return [Phase(self.phase, epochs=2, lr=0.001)]

    def phase_loss(self, phase, teacher, student=None, target=None):
        assert phase.name == self.phase
        return F.mse_loss(self.decoder(self.encoder(teacher.logits)), teacher.logits)

    def end_phase(self, phase):
        self.encoder.requires_grad_(False)
        self.decoder.requires_grad_(False)

    def terms(self, student, teacher, target=None, context=None):
        code = self.encoder(teacher.logits).detach()
        return {"paraphrased": self.scale * F.mse_loss(self.translator(student.logits), code)}


class Net(nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, classes)

    def forward(self, images):
        return self.fc(F.dropout(self.norm(self.conv(images)).relu(), 0.3, self.training).mean((2, 3)))


def net(classes, channels):
    return Net(classes, channels)
'''
METHOD = {"method": "python:theirs:Paraphrased"}


@pytest.fixture(autouse=True)
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module outside the package: a method with a phase and adapters, and a network with dropout."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "theirs.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)


def with_dropout(**distill: Any) -> Any:
    return tiny.recipe(distill={"epochs": 3, **METHOD, **distill}, student={"model": "python:theirs:net"})


def weights(folder: Path, role: str = "student") -> dict[str, Tensor]:
    return load_file(folder / "networks" / role / f"{role}.safetensors")


def interrupted(run_folder: Path, label: str, after: int, recipe: Any) -> list[str]:
    """Interrupt the student after so many looks at the loss, then go on; what was said the second time."""
    listener = tiny.Interrupting(label, after)
    with pytest.raises(KeyboardInterrupt), events.listening(listener):
        tiny.train(tiny.workshop(recipe, run_folder), "student")
    listener = tiny.Interrupting("nothing", 0)
    with events.listening(listener):
        tiny.train(tiny.workshop(recipe, run_folder), "student")
    return listener.heard


@pytest.fixture
def whole(run_folder: Path, tmp_path: Path) -> Path:
    """The same training without an interruption."""
    folder = tmp_path / "whole"
    shutil.copytree(run_folder, folder)
    tiny.train(tiny.workshop(with_dropout(), folder), "student")
    return folder


@pytest.mark.parametrize(
    ("label", "after", "said"),
    [
        ("student", 0, "student: paraphraser: continues after epoch 2 of 2"),
        ("student", 2, "student: continues after epoch 2 of 3"),
        ("student: paraphraser", 1, "student: paraphraser: continues after epoch 1 of 2"),
    ],
)
def test_the_same_bits_after_an_interruption(run_folder: Path, whole: Path, label: str, after: int, said: str) -> None:
    assert said in interrupted(run_folder, label, after, with_dropout())
    assert tiny.same(weights(run_folder), weights(whole))
    student = run_folder / "networks" / "student"
    lines = [json.loads(line) for line in (student / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert not list(run_folder.rglob(state.STATE))


@pytest.mark.parametrize("method", ["crd", "factor-transfer", "simkd"])
def test_methods_that_keep_something_of_their_own_go_on_with_it(run_folder: Path, tmp_path: Path, method: str) -> None:
    """CRD has a memory of the training set, factor transfer a phase, and SimKD deploys another network."""
    recipe = tiny.recipe(distill={"method": method, "epochs": 3, "checkpoint_steps": 3})
    whole = Path(shutil.copytree(run_folder, tmp_path / "whole"))
    tiny.train(tiny.workshop(recipe, whole), "student")
    assert "student: continues after epoch 1 of 3, batch 1 of 5" in interrupted(run_folder, "student", 3, recipe)
    assert tiny.same(weights(run_folder), weights(whole))


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"optimizer": "adamw", "lr": 0.01, "nonfinite": "skip"},
        {"precision": "bfloat16", "channels_last": True, "nonfinite": "skip"},
    ],
)
def test_the_same_bits_after_an_interruption_inside_an_epoch(
    run_folder: Path, tmp_path: Path, training: dict[str, Any]
) -> None:
    recipe = with_dropout(checkpoint_steps=2, **training)
    whole = Path(shutil.copytree(run_folder, tmp_path / "whole"))
    tiny.train(tiny.workshop(with_dropout(**training), whole), "student")  # how often is not seen in the weights
    heard = interrupted(run_folder, "student", 4, recipe)
    assert "student: continues after epoch 1 of 3, batch 1 of 5" in heard
    assert tiny.same(weights(run_folder), weights(whole))
    assert figures(run_folder) == figures(whole)


def figures(folder: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` without the times."""
    lines = (folder / "networks" / "student" / "metrics.jsonl").read_text().splitlines()
    return [{**json.loads(line), "seconds": None, "images_per_s": None} for line in lines]


def test_every_random_generator_goes_on(tmp_path: Path) -> None:
    network = torch.nn.Linear(1, 1)
    progress = state.Progress(network, torch.nn.Module(), torch.optim.SGD(network.parameters(), lr=0.1), tmp_path)
    state.seed_everything(3)
    progress.save(state.Position())
    drawn = random.random(), np.random.rand(), torch.rand(1).item()
    progress.load()
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == drawn


def test_by_the_clock_a_checkpoint_costs_under_half_a_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(state.time, "monotonic", lambda: clock[0])
    pace, written_s, saved = state.Pace(None), 0.0, 0
    with pace.writing():  # the one that each training begins with
        clock[0] += 0.3
    for step in range(1, 100_001):
        clock[0] += 0.02
        if pace.due(step):
            with pace.writing():
                clock[0] += 0.3
            written_s, saved = written_s + 0.3, saved + 1
    assert saved > 20
    assert written_s / clock[0] < 0.005


def test_the_same_bits_after_a_process_was_killed(run_folder: Path, whole: Path) -> None:
    dies = (
        "import os, sys, pathlib\n"
        "from kdeploy.training import state\n"
        "from tests.training import test_resume, tiny\n"
        "write = state.write_metrics\n"
        "def killed(folder, history):\n"
        "    write(folder, history)\n"
        "    if folder.name == 'student' and len(history) == 2:\n"
        "        os._exit(9)\n"
        "state.write_metrics = killed\n"
        "tiny.train(tiny.workshop(test_resume.with_dropout(), pathlib.Path(sys.argv[1])), 'student')\n"
    )
    code = os.pathsep.join([str(run_folder.parent / "code"), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": code}
    done = subprocess.run([sys.executable, "-c", dies, str(run_folder)], env=environment, check=False)
    assert done.returncode == 9
    tiny.train(tiny.workshop(with_dropout(), run_folder), "student")
    assert tiny.same(weights(run_folder), weights(whole))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other keys", "other network"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(run_folder: Path, whole: Path, damage: str) -> None:
    heard = damaged_and_again(run_folder, damage, state.STATE)
    assert any("state.pt is damaged" in line and line.endswith("; the one before it is used.") for line in heard)
    assert "student: continues after epoch 1 of 3" in heard
    assert tiny.same(weights(run_folder), weights(whole))


def test_two_damaged_checkpoints_start_the_training_again(run_folder: Path, whole: Path) -> None:
    heard = damaged_and_again(run_folder, "flipped", state.STATE, state.BEFORE)
    said = "is damaged (its SHA-256 is not what it was when it was written); "
    folder = run_folder / "networks" / "student"
    assert f"{folder / state.STATE} {said}the one before it is used." in heard
    assert f"{folder / state.BEFORE} {said}this training starts again." in heard
    assert not any(line.startswith("student: continues") for line in heard)
    assert tiny.same(weights(run_folder), weights(whole))


def damaged_and_again(run_folder: Path, damage: str, *names: str) -> list[str]:
    """Interrupt the student after two epochs, damage its checkpoints, go on; what was said then."""
    with pytest.raises(KeyboardInterrupt), events.listening(tiny.Interrupting("student", 2)):
        tiny.train(tiny.workshop(with_dropout(), run_folder), "student")
    for name in names:
        damaged(run_folder / "networks" / "student" / name, damage)
    listener = tiny.Interrupting("nothing", 0)
    with events.listening(listener):
        tiny.train(tiny.workshop(with_dropout(), run_folder), "student")
    return listener.heard


def damaged(path: Path, damage: str) -> None:
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "other keys":
        path.write_bytes(state._hashed({"network": {}}))
    else:
        loaded = torch.load(path, weights_only=True)
        path.write_bytes(state._hashed({**loaded, "objective": {}}))


def test_a_training_that_starts_again_starts_from_the_same_weights(run_folder: Path) -> None:
    recipe = tiny.recipe()
    with pytest.raises(KeyboardInterrupt), events.listening(tiny.Interrupting("alone", 1)):
        tiny.train(tiny.workshop(recipe, run_folder), "alone")
    for name in (state.STATE, state.BEFORE):
        path = run_folder / "networks" / "alone" / name
        loaded = torch.load(path, weights_only=True)
        loaded["optimizer"]["param_groups"] = []
        path.write_bytes(state._hashed(loaded))
    tiny.train(tiny.workshop(recipe, run_folder), "alone")
    again = weights(run_folder, "alone")
    shutil.rmtree(run_folder / "networks" / "alone")
    tiny.train(tiny.workshop(recipe, run_folder), "alone")
    assert tiny.same(again, weights(run_folder, "alone"))
