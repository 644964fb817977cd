"""Trainings on mixed, painted-over and streamed images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from kdeploy import events, sources
from kdeploy.errors import UserError
from kdeploy.recipe.schema import DataSpec
from kdeploy.training.procedures import find
from kdeploy.training.procedures.base import Workshop
from tests.training import tiny

MIXED = {
    **tiny.DATA,
    "augment": {"crop": 1, "flip": False, "mixup": 0.4, "cutmix": 1.0, "cutout": 2, "randaugment": {}},
}


@pytest.mark.parametrize("method", ["dkd", "nkd", "crd"])
def test_methods_that_want_one_class_an_image_refuse_mixed_images_before_any_work(method: str) -> None:
    recipe = tiny.recipe(distill={"method": method}, data=MIXED)
    with pytest.raises(UserError, match=f"^The method {method} wants one class for each image, and data.augment mixes"):
        find("offline").jobs(recipe)


def test_a_teacher_cache_refuses_mixed_images() -> None:
    with pytest.raises(ValidationError, match=r"teacher.cache holds what the teacher says of single images"):
        tiny.recipe(teacher={"cache": {}}, data=MIXED)


def test_a_student_learns_from_mixed_images_and_the_same_again(teacher_folder: Path, tmp_path: Path) -> None:
    weights = []
    for name in ("one", "other"):
        shop = tiny.workshop(tiny.recipe(distill={"method": "kd"}, data=MIXED), tmp_path / name)
        shop.networks.mkdir(parents=True)
        (shop.networks / "teacher").symlink_to(teacher_folder)
        tiny.train(shop, "student")
        weights.append(load_file(shop.networks / "student" / "student.safetensors"))
    assert tiny.same(*weights)


def digits(folder: Path) -> Path:
    """Ninety digits as PNG files, in a folder for each of three classes."""
    found = load_digits(n_class=3)
    for number in range(90):
        path = folder / str(found.target[number]) / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((found.images[number] * 15.9).astype("uint8")).save(path)
    return folder


def from_files(root: Path, folder: Path, *, memory: bool, **distill: Any) -> Workshop:
    data = {"source": "imagefolder", "root": str(root), "memory": memory, "augment": MIXED["augment"]}
    splits = sources.load(DataSpec.model_validate(data), base=folder)
    assert splits.train.streams is not memory
    recipe = tiny.recipe(data=data, distill=distill)
    return Workshop(recipe, folder, folder / "networks", splits, torch.device("cpu"))


def test_streamed_training_gives_the_weights_of_training_in_memory(tmp_path: Path) -> None:
    root = digits(tmp_path / "digits")
    weights = []
    for memory in (True, False):
        folder = tmp_path / f"memory-{memory}"
        tiny.train(from_files(root, folder, memory=memory), "alone")
        weights.append(load_file(folder / "networks" / "alone" / "alone.safetensors"))
    assert tiny.same(*weights)


def test_streamed_training_goes_on_inside_an_epoch(tmp_path: Path) -> None:
    root = digits(tmp_path / "digits")
    cut = from_files(root, tmp_path / "cut", memory=False, batch=16, checkpoint_steps=2)
    whole = from_files(root, tmp_path / "whole", memory=False, batch=16)
    tiny.train(whole, "alone")
    listener = tiny.Interrupting("alone", 1)
    with pytest.raises(KeyboardInterrupt), events.listening(listener):
        tiny.train(cut, "alone")
    listener = tiny.Interrupting("nothing", 0)
    with events.listening(listener):
        tiny.train(cut, "alone")
    assert any("batch 2 of" in said for said in listener.heard)
    one, other = (load_file(tmp_path / name / "networks" / "alone" / "alone.safetensors") for name in ("whole", "cut"))
    assert tiny.same(one, other)
