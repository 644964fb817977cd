import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kdeploy import sources
from kdeploy.errors import UserError
from kdeploy.recipe.schema import DataSpec
from tests.sources.conftest import image_set

DIGITS = DataSpec()


def test_the_names_are_the_files() -> None:
    known = ("hf", "idx", "imagefolder", "python", "sklearn-digits", "torchvision", "webdataset")
    assert sources.names() == known
    assert all(usage.startswith(name) for name, usage in zip(sources.names(), sources.usages(), strict=True))


@pytest.mark.parametrize("source", ["idx", "imagefolder", "sklearn-digits", "torchvision:CIFAR10", "python:a.b:c"])
def test_check_accepts_what_a_recipe_may_say(source: str) -> None:
    sources.check(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("image-folder", "Did you mean 'imagefolder'"),
        ("zzz", "Choose from: hf, idx, imagefolder, python"),
        ("base", "There is no data source 'base'"),
        ("torchvision", "must be written torchvision:<Dataset>"),
        ("torchvision:", "must be written torchvision:<Dataset>"),
        ("python:module", "must be written python:package.module:function"),
        ("idx:letters", "must be written idx"),
    ],
)
def test_check_says_what_to_write_instead(source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sources.check(source)


def test_checking_a_source_loads_nothing_heavy() -> None:
    program = (
        "import sys; from kdeploy import sources\n"
        "names = 'torchvision:CIFAR10', 'sklearn-digits', 'imagefolder', 'idx', 'python:a:b'\n"
        "for name in names: sources.check(name)\n"
        "assert not {'torch', 'torchvision', 'sklearn', 'onnx', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_fingerprint_is_stable_and_sees_every_part() -> None:
    splits = sources.load(DIGITS, base=Path())
    same = sources.fingerprint(sources.load(DIGITS, base=Path()))
    assert sources.fingerprint(splits) == same
    changed = splits.test.images.copy()
    changed[-1, -1, -1, -1] ^= 1
    labels = splits.validation.labels.copy()
    labels[0] = (labels[0] + 1) % 10
    others = [
        replace(splits, test=replace(splits.test, images=changed)),
        replace(splits, validation=replace(splits.validation, labels=labels)),
        replace(splits, train=replace(splits.train, classes=tuple("abcdefghij"))),
    ]
    assert len({same, *map(sources.fingerprint, others)}) == 4


@pytest.mark.parametrize("size", [4, 16])
def test_size_resizes_every_part(size: int) -> None:
    splits = sources.load(DataSpec(size=size), base=Path())
    assert {part.images.shape[1:] for part in (splits.train, splits.validation, splits.test)} == {(size, size, 1)}


GOOD = image_set(3, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": GOOD.images.astype(np.float32)}, "float32; scale them to 0..255"),
        ({"images": GOOD.images[..., 0]}, r"must be \[N, H, W, C\]"),
        ({"images": np.zeros((6, 2, 2, 4), np.uint8)}, r"must be \[N, H, W, C\]"),
        ({"images": GOOD.images[:0], "labels": GOOD.labels[:0]}, r"\[0, 2, 2, 1\]"),
        ({"labels": GOOD.labels.astype(np.int32)}, "int32; convert them to int64"),
        ({"labels": GOOD.labels[:-1]}, "6 images have labels of the shape"),
        ({"labels": GOOD.labels + 1}, "labels run from 1 to 2"),
        ({"labels": GOOD.labels - 1}, "labels run from -1 to 0"),
        ({"labels": list(GOOD.labels)}, "must be NumPy arrays"),
        ({"classes": ("one",)}, "at least two"),
        ({"classes": ("one", "one")}, "occurs twice"),
        ({"classes": ["one", "two"]}, "tuple of strings"),
    ],
)
def test_validate_names_what_is_wrong(change: dict[str, object], message: str) -> None:
    sources.validate(GOOD, "here")
    with pytest.raises(UserError, match=message) as caught:
        sources.validate(replace(GOOD, **change), "here")  # type: ignore[arg-type]
    assert str(caught.value).startswith("here: ")


@pytest.mark.parametrize("source", ["sklearn-digits", "hf:cifar", "webdataset:a.tar", "python:a:b"])
def test_a_source_that_must_open_training_images_to_give_test_is_refused(source: str) -> None:
    with pytest.raises(UserError, match=r"cannot be had without opening its training images.*idx, imagefolder, t"):
        sources.load(DataSpec(source=source), base=Path(), training_images=False)


def test_without_training_images_there_is_nothing_to_learn_from_and_to_choose_on() -> None:
    test = image_set(3, 2)
    splits = sources.Splits.test_alone(test)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (0, 0, 5)
    assert not splits.has_training_images
    assert splits.shape == (2, 2, 1)
    assert splits.classes == test.classes
    assert sources.fingerprint(splits) != sources.fingerprint(sources.Splits.test_alone(image_set(2, 3)))
