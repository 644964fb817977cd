"""Images that a run has made for itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdeploy.errors import UserError
from kdeploy.sources import synthesised
from kdeploy.sources.base import ImageSet
from tests.sources.conftest import image_set, random_pixels


def made(count: int = 40, channels: int = 3) -> synthesised.Synthesised:
    labels = (np.arange(count) % 3).astype(np.int64)
    return synthesised.Synthesised(
        ImageSet(random_pixels(count, 5, 4, channels), labels, ("a", "b", "c", "d")), "noise images"
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    synthesised.write(tmp_path, made(), teacher_statistics="batch")
    found = synthesised.read(tmp_path)
    assert found.what == "noise images"
    assert np.array_equal(found.images.images, made().images.images)
    assert found.images.labels.tolist() == made().images.labels.tolist()
    card = json.loads((tmp_path / "images" / "images.json").read_text())
    assert card["teacher_calls"] == {"a": 14, "b": 13, "c": 13, "d": 0}
    assert card["teacher_statistics"] == "batch"
    assert all((tmp_path / name).is_file() for name in synthesised.FILES)


def test_the_same_images_make_the_same_file(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        synthesised.write(tmp_path / name, made())
        contents.append((tmp_path / name / "images" / "images.npz").read_bytes())
    assert contents[0] == contents[1]


def test_half_are_compared_on_and_the_others_calibrated_on() -> None:
    test = image_set(1, 1)
    splits = made(41).as_splits(test)
    assert (len(splits.validation), len(splits.train), splits.test) == (20, 21, test)
    assert np.array_equal(splits.validation.images, made(41).images.images[:20])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_picture_shows_them_side_by_side(channels: int, tmp_path: Path) -> None:
    synthesised.write(tmp_path, made(18, channels))
    picture = np.asarray(Image.open(tmp_path / "images" / "images.png")).reshape(11, 79, channels)
    pixels = made(18, channels).images.images
    assert np.array_equal(picture[:5, :4], pixels[0])
    assert np.array_equal(picture[6:, 5:9], pixels[17])
    assert (picture[5] == 255).all()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    synthesised.write(tmp_path, made())
    (tmp_path / "images" / "images.npz").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"images\.npz is missing or broken .*: run the recipe again"):
        synthesised.read(tmp_path)
