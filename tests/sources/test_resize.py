import numpy as np
import pytest

from kdeploy.sources.base import ImageSet, Source
from kdeploy.sources.resize import resize


@pytest.mark.parametrize("channels", [1, 3])
def test_shrinking_sees_every_pixel(channels: int) -> None:
    images = np.zeros((2, 16, 16, channels), dtype=np.uint8)
    images[1, ::4, ::4] = 255  # the corner of each 4x4 block, which two-tap interpolation would miss
    source = Source(ImageSet(images, np.array([0, 1]), ("dark", "dots")), None)
    small = resize(source, 4).train.images
    assert small.shape == (2, 4, 4, channels)
    assert not small[0].any()
    assert small[1].min() > 0
    assert small[1].mean() == pytest.approx(255 / 16, rel=0.25)


def test_what_has_the_size_already_is_not_touched() -> None:
    images = ImageSet(np.zeros((2, 4, 4, 1), dtype=np.uint8), np.array([0, 1]), ("a", "b"))
    assert resize(Source(images, images), 4).test is images
    assert resize(Source(images, None), None).train is images
