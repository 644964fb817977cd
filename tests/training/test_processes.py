"""Two processes over gloo at half the batch each, against one at the whole batch: the same weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kdeploy.errors import UserError
from kdeploy.training.processes import opened

# Batch norm would see half a batch, and its synchronised form has none for the CPU: groups see no batch at all.
NETWORK = """
from torch import nn

def small(classes, channels, planes=8):
    def stage(inputs, outputs, stride):
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(2, outputs), nn.ReLU())

    return nn.Sequential(
        stage(channels, planes, 1), stage(planes, 2 * planes, 2), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(8 * planes, classes),
    )
"""

RECIPE = """\
name: shared
data: {source: sklearn-digits, limit: 131, augment: {crop: 1, flip: false}}
teacher:
  model: python:groups:small
  options: {planes: 16}
  train: {epochs: 20, batch: 32, lr: 0.1, precision: float32}
student: {model: "python:groups:small"}
distill: {baseline: none, epochs: 2, batch: 32, lr: 0.05, precision: float32}
"""


COMMAND = [sys.executable, "-m", "kdeploy.cli.main", "distill", "recipe.yaml"]


def environment(folder: Path) -> dict[str, str]:
    paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def _files(tmp_path: Path) -> None:
    (tmp_path / "groups.py").write_text(NETWORK)
    (tmp_path / "recipe.yaml").write_text(RECIPE)


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=300, check=False
    )


def distil(folder: Path, out: str, *words: str, fails: bool = False) -> str:
    """`kdeploy distill` in a process of its own; what it said."""
    done = run(folder, *COMMAND, "--out", out, *words)
    said = done.stdout + done.stderr
    assert (done.returncode != 0) == fails, said
    assert "Traceback" not in said
    return said


def weights(folder: Path, out: str, role: str = "student") -> dict[str, torch.Tensor]:
    return load_file(folder / out / "networks" / role / f"{role}.safetensors")


def metrics(folder: Path, out: str) -> list[dict[str, float]]:
    lines = (folder / out / "networks" / "student" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    "method", [["distill.method=kd"], ["distill.method=sp"], ["distill.method=crd", "distill.options={negatives: 64}"]]
)
def test_two_processes_give_the_weights_of_one(tmp_path: Path, method: list[str]) -> None:
    """131 images, so the last batch of an epoch has 3, too few for two, and both take it whole."""
    settings = [word for each in method for word in ("--set", each)]
    distil(tmp_path, "one", *settings)
    said = distil(tmp_path, "two", *settings, "--devices", "2")
    assert "processes: 2" in said
    assert said.count("the teacher: ") == 1  # the other process is not heard
    for role in ("teacher", "student"):
        alone, shared = weights(tmp_path, "one", role), weights(tmp_path, "two", role)
        for name, expected in alone.items():
            torch.testing.assert_close(shared[name], expected, rtol=1e-4, atol=2e-5)
    for one, two in zip(metrics(tmp_path, "one"), metrics(tmp_path, "two"), strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4)
        assert two["train_accuracy"] == one["train_accuracy"]  # over all samples, none twice
        assert two["validation_accuracy"] == one["validation_accuracy"]


def test_parts_alone_give_other_weights(tmp_path: Path) -> None:
    """Without gathering SP compares the samples of a part: the test above would see it."""
    settings = ["--set", "distill.method=sp"]
    distil(tmp_path, "one", *settings)
    distil(tmp_path, "two", *settings, "--devices", "2", "--set", "distill.gather=false")
    alone, shared = weights(tmp_path, "one"), weights(tmp_path, "two")
    assert any(not torch.allclose(shared[name], alone[name], rtol=1e-3, atol=1e-3) for name in alone)


def test_crd_does_not_work_on_parts(tmp_path: Path) -> None:
    settings = ["distill.method=crd", "distill.options={negatives: 64}", "distill.gather=false"]
    said = distil(
        tmp_path, "two", *(word for each in settings for word in ("--set", each)), "--devices", "2", fails=True
    )
    assert "leave distill.gather at true" in " ".join(said.split())


def test_torchrun_starts_them_as_well(tmp_path: Path) -> None:
    """As on several machines, of which this is one; another number than torchrun's is refused."""
    distil(tmp_path, "one", "--set", "teacher.train.epochs=5")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*COMMAND[1:], "--set", "teacher.train.epochs=5"]

    def torchrun(*more: str) -> subprocess.CompletedProcess[str]:
        return run(tmp_path, sys.executable, *launch, *words, *more)

    done = torchrun("--out", "two", "--devices", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    alone, shared = weights(tmp_path, "one"), weights(tmp_path, "two")
    for name, expected in alone.items():
        torch.testing.assert_close(shared[name], expected, rtol=1e-4, atol=2e-5)
    wrong = torchrun("--out", "three", "--devices", "4")
    assert wrong.returncode != 0
    assert "type --devices 2" in " ".join((wrong.stdout + wrong.stderr).split())


def test_one_machine_does_not_start_the_others(tmp_path: Path) -> None:
    said = distil(tmp_path, "run", "--devices", "2", "--nodes", "2", fails=True)
    assert "started by torchrun or SLURM" in " ".join(said.split())


@pytest.mark.parametrize("asked", ["cuda:0", "mps"])
def test_one_device_is_not_several(asked: str) -> None:
    with pytest.raises(UserError, match="is one device, and --devices asks for 2"), opened(asked, 2, 1):
        pass


def test_synchronised_batch_norm_has_no_form_for_the_cpu(tmp_path: Path) -> None:
    settings = ["--set", "distill.sync_batchnorm=true", "--devices", "2"]
    said = distil(tmp_path, "run", *settings, fails=True)
    assert "synchronised batch norm has no CPU form" in " ".join(said.split())


def test_what_two_began_goes_on_with_two_or_with_one(tmp_path: Path) -> None:
    """The first process's checkpoint is all that the others need."""
    longer = ["--set", "distill.epochs=3", "--set", "distill.checkpoint_steps=2"]
    distil(tmp_path, "whole", *longer, "--devices", "2")
    killed = subprocess.Popen(
        [*COMMAND, "--out", "cut", *longer, "--devices", "2"],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    state = tmp_path / "cut" / "networks" / "student" / "state.pt"
    deadline = time.monotonic() + 200
    while not state.exists():
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    shutil.copytree(tmp_path / "cut", tmp_path / "by-one")
    distil(tmp_path, "cut", *longer, "--devices", "2", "--resume")
    distil(tmp_path, "by-one", *longer, "--resume")
    expected = weights(tmp_path, "whole")
    for name, value in weights(tmp_path, "cut").items():
        assert torch.equal(value, expected[name])
    for name, value in weights(tmp_path, "by-one").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=2e-5)
