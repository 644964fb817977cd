"""A run that is killed at any instant, again and again, ends with the bits of one that was left alone."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdeploy.artifacts import sha256_file
from tests.training.forks import Forks

RECIPE = """\
name: killed
data: {source: sklearn-digits, limit: 150, augment: {crop: 1, flip: false}}
teacher:
  model: resnet8
  width: 0.5
  train: {epochs: EPOCHS, batch: 32, lr: 0.1, precision: float32, checkpoint_steps: 2}
student: {model: resnet8, width: 0.25}
distill:
  {method: crd, options: {negatives: 64}, baseline: none, epochs: EPOCHS, batch: 32, lr: 0.05, precision: float32,
   checkpoint_steps: 2}
"""


@pytest.fixture
def forks(tmp_path: Path) -> Iterator[Forks]:
    started = Forks(tmp_path)
    yield started
    started.end()


def distil(forks: Forks, folder: Path, name: str, *, dies: tuple[str, int] | None = None) -> int:
    """The exit status of a whole `kdeploy distill`."""
    forks.start(*words(folder, name), dies=dies)
    return forks.status()


def killed(forks: Forks, folder: Path, draw: random.Random) -> int:
    """`kdeploy distill`, killed at a random instant after a few checkpoints; its exit status."""
    before = newest(folder / "killed")
    process = forks.start(*words(folder, "killed"))
    deadline = time.monotonic() + 60
    for _ in range(draw.randrange(1, 6)):
        while newest(folder / "killed") <= before:
            assert time.monotonic() < deadline, (folder / "said.txt").read_text()
            time.sleep(0.001)
        before = newest(folder / "killed")
    time.sleep(draw.uniform(0.0, 0.05))
    os.kill(process, signal.SIGKILL)
    return forks.status()


def words(folder: Path, name: str) -> list[str]:
    return ["distill", str(folder / "killed.yaml"), "--out", str(folder / name), "--device", "cpu"]


def newest(run: Path) -> int:
    """The time of the newest checkpoint, in nanoseconds."""
    times = [0]
    for path in run.glob("networks/*/state*.pt"):
        with contextlib.suppress(FileNotFoundError):
            times.append(path.stat().st_mtime_ns)
    return max(times)


def results(run: Path) -> dict[str, str]:
    """The SHA-256 of the final weights."""
    return {role: sha256_file(run / "networks" / role / f"{role}.safetensors") for role in ("teacher", "student")}


def compared(forks: Forks, folder: Path) -> None:
    """Let the killed run end, and compare it with one that was left alone."""
    assert distil(forks, folder, "killed") == 0, (folder / "said.txt").read_text()
    assert distil(forks, folder, "whole") == 0
    assert results(folder / "killed") == results(folder / "whole")
    assert not {path.name for path in (folder / "killed").rglob("*") if re.match(r"\.|state", path.name)}


def continued(folder: Path) -> list[str]:
    """The places where the killed run went on inside an epoch."""
    return re.findall(r"continues after epoch \d+ of \d+, batch \d", (folder / "killed" / "run.log").read_text())


def write_recipe(folder: Path, epochs: int) -> None:
    (folder / "killed.yaml").write_text(RECIPE.replace("EPOCHS", str(epochs)))


def test_killed_at_random_instants_and_in_the_middle_of_a_checkpoint(forks: Forks, tmp_path: Path) -> None:
    """The first two end in a certain checkpoint: the one before it is known, and both are inside an epoch."""
    write_recipe(tmp_path, 10)
    for where, number in (("half", 3), ("between", 4)):
        assert distil(forks, tmp_path, "killed", dies=(where, number)) == -signal.SIGKILL
    draw = random.Random(0)
    for _ in range(3):
        assert killed(forks, tmp_path, draw) == -signal.SIGKILL
    compared(forks, tmp_path)
    assert continued(tmp_path)[:2] == [
        "continues after epoch 0 of 10, batch 2",
        "continues after epoch 1 of 10, batch 1",
    ]


@pytest.mark.slow
def test_killed_twenty_times(forks: Forks, tmp_path: Path) -> None:
    write_recipe(tmp_path, 40)
    draw = random.Random(1)
    for _ in range(20):
        assert killed(forks, tmp_path, draw) == -signal.SIGKILL
    compared(forks, tmp_path)
    assert len(continued(tmp_path)) >= 3  # two of three checkpoints are inside an epoch; the rest is chance
