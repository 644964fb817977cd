"""An interrupted training never goes on from something else than it began with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from kdeploy import artifacts
from kdeploy.errors import UserError
from kdeploy.stages import interrupted
from kdeploy.stages.train import _deciding
from tests.training import tiny

INPUTS = {
    "network": {"model": "resnet8", "train": {"lr": 0.1, "nonfinite": "stop"}},
    "images": "abc",
    "before": {"teacher": "def"},
}
WAYS_OUT = "type --fresh to remove the whole run and start again, or --out DIR to leave it as it is"


def begin(folder: Path, inputs: Any = INPUTS, *, device: str = "cpu", chosen: bool = False) -> None:
    interrupted.begin(folder, inputs, device=device, chosen=chosen)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A training that was interrupted after its first checkpoint."""
    begin(tmp_path / "student")
    (tmp_path / "student" / "phase").mkdir()
    (tmp_path / "student" / "phase" / "state.pt").touch()
    return tmp_path / "student"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": "other"}, "the images of the data set"),
        ({"before": {"teacher": "other"}}, "the weights of the network trained before it"),
        (
            {"network": {"model": "resnet8", "train": {"lr": 0.2, "nonfinite": "stop"}}, "seed": 3},
            "network.train.lr (0.1, now 0.2); seed (null, now 3)",
        ),
    ],
)
def test_what_has_changed_is_named_and_nothing_is_touched(folder: Path, change: dict[str, Any], said: str) -> None:
    before = artifacts.sha256_file(folder / interrupted.NOTE)
    message = re.escape(f"{folder} was interrupted, and since then this has changed: {said}. ") + f".*{WAYS_OUT}"
    with pytest.raises(UserError, match=message):
        begin(folder, {**INPUTS, **change})
    assert artifacts.sha256_file(folder / interrupted.NOTE) == before
    assert (folder / "phase" / "state.pt").is_file()


def test_the_same_goes_on_and_so_does_what_may_change(folder: Path) -> None:
    begin(folder)
    begin(folder, {**INPUTS, "network": {"model": "resnet8", "train": {"lr": 0.1, "nonfinite": "skip"}}})
    with pytest.raises(UserError, match=r'nonfinite \("skip", now "stop"\)'):
        begin(folder)


def test_what_never_came_to_a_checkpoint_may_begin_with_anything(tmp_path: Path) -> None:
    begin(tmp_path)
    begin(tmp_path, {"images": "other"}, device="cuda")


def test_another_device_must_be_asked_for(folder: Path) -> None:
    with pytest.raises(
        UserError, match=r"was interrupted on cpu, and the device to be had here now is cuda\. Type --d"
    ):
        begin(folder, device="cuda")
    begin(folder, device="cuda", chosen=True)
    begin(folder, device="cuda")


def test_images_are_compared_with_all_that_was_interrupted(folder: Path) -> None:
    interrupted.require_same_images(folder.parent, "abc")
    with pytest.raises(UserError, match=r"student was interrupted, and since then .* the images of the data set"):
        interrupted.require_same_images(folder.parent, "other")
    interrupted.end(folder)
    interrupted.require_same_images(folder.parent, "other")


def test_how_often_a_training_is_saved_is_no_part_of_what_it_is_known_by() -> None:
    often = tiny.recipe(distill={"checkpoint_steps": 5}, teacher={"train": {**tiny.TRAIN, "checkpoint_steps": 7}})
    seldom = tiny.recipe(teacher={"train": tiny.TRAIN})
    inputs = [
        _deciding({"distill": one.distill.model_dump(), "network": one.teacher.model_dump()}) for one in (often, seldom)
    ]
    assert inputs[0] == inputs[1]
    assert "nonfinite" in inputs[0]["distill"]
    theirs = {"distill": {"options": {"checkpoint_steps": 3}}}
    assert _deciding(theirs) == theirs
