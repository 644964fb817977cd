"""Memory that runs out and a disk that is full: one sentence, and the checkpoint before is kept."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kdeploy import artifacts
from kdeploy.errors import UserError
from kdeploy.training import state
from tests.training import tiny

THEIRS = """
import torch
from kdeploy.methods import Method

class Hungry(Method):
    def terms(self, student, teacher, target=None, context=None):
        if context.step == self.step:
            self.eat()
        return {"hungry": student.logits.square().mean()}

    step = 7

    def eat(self):
        torch.empty(1 << 60, dtype=torch.uint8)

class Greedy(Hungry):
    def eat(self):
        raise MemoryError

class OnDevice(Hungry):
    def eat(self):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

class Wrong(Hungry):
    def eat(self):
        raise RuntimeError("a bug")
"""


@pytest.fixture(autouse=True)
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "hungry.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.delitem(sys.modules, "hungry", raising=False)


def student(method: str, folder: Path) -> None:
    tiny.train(tiny.workshop(tiny.recipe(distill={"method": f"python:hungry:{method}"}), folder), "student")


@pytest.mark.parametrize("method", ["Hungry", "Greedy", "OnDevice"])
def test_memory_that_runs_out_says_what_to_lower_and_keeps_the_state(run_folder: Path, method: str) -> None:
    with pytest.raises(UserError) as caught:
        student(method, run_folder)
    assert str(caught.value) == (
        "Memory ran out in the training of student. Its last checkpoint is kept: make room and type the same command "
        "again, or lower distill.batch (now 32) and start another run with --out DIR."
    )
    kept = torch.load(run_folder / "networks" / "student" / state.STATE, weights_only=True)
    assert len(kept["history"]) == 1


def test_another_error_stays_what_it_is(run_folder: Path) -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        student("Wrong", run_folder)


def test_a_full_disk_keeps_the_checkpoint_before_and_room_lets_it_go_on(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of the second epoch goes to /dev/full, where the kernel says ENOSPC."""
    whole = Path(shutil.copytree(run_folder, tmp_path / "whole"))
    tiny.train(tiny.workshop(tiny.recipe(), whole), "student")
    make, made = artifacts.tempfile.mkstemp, []

    def full(*, prefix: str, **more: Any) -> tuple[int, str]:
        handle, name = make(prefix=prefix, **more)
        made.append(prefix)
        if prefix == ".state-" and made.count(prefix) == 3:
            Path(name).unlink()
            Path(name).symlink_to("/dev/full")
        return handle, name

    monkeypatch.setattr(artifacts.tempfile, "mkstemp", full)
    folder = run_folder / "networks" / "student"
    with pytest.raises(UserError) as caught:
        tiny.train(tiny.workshop(tiny.recipe(), run_folder), "student")
    assert str(caught.value) == (
        f"{folder / state.STATE} cannot be written: No space left on device. The checkpoint before this one is kept: "
        "make room, then type the same command again."
    )
    assert len(torch.load(folder / state.STATE, weights_only=True)["history"]) == 1
    assert not list(folder.glob(".state-*"))
    tiny.train(tiny.workshop(tiny.recipe(), run_folder), "student")
    one, two = (load_file(at / "networks" / "student" / "student.safetensors") for at in (run_folder, whole))
    assert tiny.same(one, two)
