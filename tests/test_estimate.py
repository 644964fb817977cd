"""A dry run: an estimate that writes nothing and fetches nothing."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from kdeploy import pipeline, recipe
from kdeploy.errors import UserError
from kdeploy.estimate import Plan, _Timing, estimate
from kdeploy.recipe.schema import Recipe
from tests.training import tiny


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder and home, and no network."""

    def connect(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", connect)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(asked: Recipe, seeds: list[int] | None = None, folder: Path = Path("run")) -> Plan:
    return estimate(asked, folder, seeds or [], "cpu")


def test_nothing_is_written(nowhere: Path) -> None:
    found = plan(tiny.recipe())
    assert list(nowhere.iterdir()) == []
    assert [step.stage for step in found.steps] == [stage.name for stage in pipeline.plan(tiny.recipe())]
    assert {step.state for step in found.steps} == {"to do"}
    assert found.downloads is None
    assert found.seconds == pytest.approx(sum(step.seconds or 0.0 for step in found.steps))
    assert found.seconds > 0


def test_a_training_takes_as_long_as_its_steps() -> None:
    """150 images in batches of 32 are 5 steps an epoch."""
    steps = {step.stage: step for step in plan(tiny.recipe(distill={"epochs": 100})).steps}
    assert steps["networks/student"].basis == "the fastest of a few steps, times 500"
    assert steps["networks/teacher"].basis == "the fastest of a few steps, times 60"
    student, alone = steps["networks/student"].seconds, steps["networks/alone"].seconds
    assert student is not None
    assert alone is not None
    assert student > alone  # the teacher's forward passes are in it
    assert steps["bench/student-pytorch"].seconds == 1.5 * 10 + 3


def test_a_teacher_with_a_cache_is_asked_once_a_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of the student takes 3 s, one of the teacher 1 s; an epoch has 5 steps."""
    monkeypatch.setattr(_Timing, "_time", lambda self, network, spec, train: 3.0 if train else 1.0)
    for views, asked in ((1, 5), (4, 20), (1000, 500)):
        changed = tiny.recipe(distill={"epochs": 100}, teacher={"cache": {"views": views}})
        steps = {step.stage: step for step in plan(changed).steps}
        assert steps["networks/student"].seconds == 500 * 3.0 + asked


def test_a_teacher_with_a_seed_of_its_own_is_counted_once() -> None:
    asked = tiny.recipe()
    several = plan(asked, [0, 1, 2])
    stages = [step.stage for step in several.steps]
    assert [stage for stage in stages if stage.endswith("networks/teacher")] == ["seed 0: networks/teacher"]
    assert len([stage for stage in stages if stage.endswith("networks/student")]) == 3
    own = plan(tiny.recipe(teacher={"seed": None}), [0, 1])
    assert len([step for step in own.steps if step.stage.endswith("networks/teacher")]) == 2


def test_the_disk_grows_with_the_networks_and_the_seeds() -> None:
    one = plan(tiny.recipe())
    wide = plan(tiny.recipe(student={"model": "resnet8", "width": 2.0}))
    assert wide.disk_bytes > one.disk_bytes
    three = plan(tiny.recipe(), [0, 1, 2])
    assert 2 * one.disk_bytes < three.disk_bytes <= 3 * one.disk_bytes


def test_the_disk_is_about_what_the_networks_take() -> None:
    """A run holds each network's float32 weights four times: trained, in torch's engine, in ONNX, in its engine."""
    found = plan(tiny.recipe(teacher={"model": "resnet20", "width": 2.0}, distill={"baseline": "none"}))
    parameters = sum(p.numel() for p in _network("resnet20", 2.0).parameters())
    assert 4 * 4 * parameters < found.disk_bytes < 4 * 4 * parameters + 2_000_000


def _network(name: str, width: float) -> torch.nn.Module:
    from kdeploy import models
    from kdeploy.recipe.schema import NetworkSpec

    return models.create(NetworkSpec(model=name, width=width), classes=10, channels=1)


def test_data_that_are_not_here_are_named_and_not_fetched(nowhere: Path) -> None:
    asked = tiny.recipe(data={"source": "torchvision:CIFAR10", "root": str(nowhere / "data")})
    found = plan(asked)
    assert found.downloads == "the data set torchvision:CIFAR10, by torchvision"
    assert found.seconds is None
    assert {step.basis for step in found.steps if step.seconds is None} == {"known once the data is here"}
    assert list(nowhere.iterdir()) == []


def test_data_that_nobody_may_fetch_are_an_error(nowhere: Path) -> None:
    asked = tiny.recipe(data={"source": "torchvision:CIFAR10", "root": str(nowhere / "data"), "download": False})
    with pytest.raises(UserError):
        plan(asked)


def test_published_weights_are_named_and_not_fetched(nowhere: Path) -> None:
    teacher = {"model": "torchvision:squeezenet1_1", "width": 1.0, "options": {"pretrained": True}, "train": None}
    colour = tiny.recipe(
        teacher=teacher, student={"model": "resnet8"}, data={"source": "python:colour:images"}, distill={"batch": 2}
    )
    (nowhere / "colour.py").write_text(
        "import numpy as np\n"
        "from kdeploy.sources.base import ImageSet, Source\n"
        "def images(**_):\n"
        "    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)\n"
        "    return Source(ImageSet(pixels, np.arange(40) % 2, ('a', 'b')), None)\n"
    )
    found = plan(colour)
    assert found.downloads == (
        "the published weights of torchvision:squeezenet1_1, where they are not in its library's cache"
    )
    assert not (nowhere / "torch").exists()


def test_what_is_done_is_shown_and_another_recipe_is_refused(nowhere: Path) -> None:
    asked = recipe.load("quickstart", ["data.limit=100", "teacher.train.epochs=1", "distill.epochs=1"])
    run = pipeline.open_run(asked, nowhere / "run")
    pipeline.execute(run, pipeline.plan(asked)[:1])
    states = {step.stage: step.state for step in plan(asked).steps}
    assert [stage for stage, state in states.items() if state == "done"] == ["data"]
    with pytest.raises(UserError, match="holds a run of another recipe"):
        plan(asked.model_copy(update={"seed": 1}))
