"""A training that was interrupted ends as if it had not been: the same bits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from kdeploy import events
from kdeploy.errors import UserError
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


class Explodes(Method):
    def terms(self, student, teacher, target=None, context=None):
        bad = float("nan") if context.step == 7 else 0.0
        return {"fuse": student.logits.mean() * 0 + bad}


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
    recipe = tiny.recipe(distill={"method": method, "epochs": 3})
    whole = Path(shutil.copytree(run_folder, tmp_path / "whole"))
    tiny.train(tiny.workshop(recipe, whole), "student")
    assert "student: continues after epoch 2 of 3" in interrupted(run_folder, "student", 2, recipe)
    assert tiny.same(weights(run_folder), weights(whole))


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
def test_a_damaged_state_is_warned_of_and_the_training_starts_again(run_folder: Path, whole: Path, damage: str) -> None:
    with pytest.raises(KeyboardInterrupt), events.listening(tiny.Interrupting("student", 2)):
        tiny.train(tiny.workshop(with_dropout(), run_folder), "student")
    damaged(run_folder / "networks" / "student" / state.STATE, damage)
    listener = tiny.Interrupting("nothing", 0)
    with events.listening(listener):
        tiny.train(tiny.workshop(with_dropout(), run_folder), "student")
    assert any("state.pt is damaged" in line and "starts again" in line for line in listener.heard)
    assert "student: continues after epoch 2 of 3" not in listener.heard
    assert tiny.same(weights(run_folder), weights(whole))


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
        torch.save({"network": {}}, path)
    else:
        loaded = torch.load(path, weights_only=True)
        loaded["objective"] = {}
        torch.save(loaded, path)


def test_a_training_that_starts_again_starts_from_the_same_weights(run_folder: Path) -> None:
    recipe = tiny.recipe()
    with pytest.raises(KeyboardInterrupt), events.listening(tiny.Interrupting("alone", 1)):
        tiny.train(tiny.workshop(recipe, run_folder), "alone")
    path = run_folder / "networks" / "alone" / state.STATE
    loaded = torch.load(path, weights_only=True)
    loaded["optimizer"]["param_groups"] = []
    torch.save(loaded, path)
    tiny.train(tiny.workshop(recipe, run_folder), "alone")
    again = weights(run_folder, "alone")
    shutil.rmtree(run_folder / "networks" / "alone")
    tiny.train(tiny.workshop(recipe, run_folder), "alone")
    assert tiny.same(again, weights(run_folder, "alone"))


def test_a_loss_that_is_no_number_names_epoch_batch_and_term_and_keeps_the_last_epoch(run_folder: Path) -> None:
    recipe = tiny.recipe(distill={"method": "python:theirs:Explodes"})
    with pytest.raises(UserError) as caught:
        tiny.train(tiny.workshop(recipe, run_folder), "student")
    steps = 5  # of 150 images, 32 a batch
    assert str(caught.value) == (
        f"The loss became NaN or infinite in epoch 2, at or before batch {steps} (term: fuse). "
        "Lower lr, or set warmup_epochs; the last whole epoch is kept."
    )
    folder = run_folder / "networks" / "student"
    kept = torch.load(folder / state.STATE, weights_only=True)
    assert [line["epoch"] for line in kept["history"]] == [0]
    assert all(value.isfinite().all() for value in kept["network"].values())
    assert not (folder / "student.safetensors").exists()


def test_weights_that_break_in_the_last_step_are_not_kept(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kdeploy.training import loop

    def breaks(totals: Any, epoch: int, number: int) -> None:
        if epoch == 1:
            next(iter(networks[0].parameters())).data.fill_(float("inf"))

    networks: list[torch.nn.Module] = []
    shop = tiny.workshop(tiny.recipe(), run_folder)
    made = shop.make
    monkeypatch.setattr(shop, "make", lambda *spec: networks.append(made(*spec)) or networks[-1])
    monkeypatch.setattr(loop._Totals, "require_finite", breaks)
    with pytest.raises(UserError, match=r"^The weights became NaN or infinite in the last batch of epoch 2\. "):
        tiny.train(shop, "alone")
    kept = torch.load(run_folder / "networks" / "alone" / state.STATE, weights_only=True)
    assert [line["epoch"] for line in kept["history"]] == [0]
