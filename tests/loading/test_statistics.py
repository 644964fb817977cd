import numpy as np
import pytest

from kdeploy.errors import UserError
from kdeploy.loading import channel_statistics
from kdeploy.sources.base import ImageSet


def image_set(images: np.ndarray) -> ImageSet:
    return ImageSet(images, np.zeros(len(images), dtype=np.int64), ("a", "b"))


def test_equals_numpy_over_more_than_one_chunk() -> None:
    images = np.random.default_rng(0).integers(0, 256, (700, 3, 4, 3), dtype=np.uint8)
    images[..., 1] //= 2
    stats = channel_statistics(image_set(images))
    unit = images.astype(np.float64) / 255
    assert stats.mean == tuple(np.round(unit.mean(axis=(0, 1, 2)), 6))
    assert stats.std == tuple(np.round(unit.std(axis=(0, 1, 2)), 6))


def test_a_gray_set_has_one_channel() -> None:
    images = np.zeros((2, 1, 2, 1), dtype=np.uint8)
    images[1] = 255
    stats = channel_statistics(image_set(images))
    assert (stats.mean, stats.std) == ((0.5,), (0.5,))


def test_a_constant_channel_is_named() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 3, 3), dtype=np.uint8)
    images[..., 2] = 7
    with pytest.raises(UserError, match="Channel 2 of the training images has the value 7 everywhere"):
        channel_statistics(image_set(images))
