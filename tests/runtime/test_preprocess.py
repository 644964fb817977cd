from __future__ import annotations

import numpy as np
import pytest

from kdeploy.engines.base import Preprocessing
from kdeploy.runtime.preprocess import preprocess

RGB = Preprocessing(in_graph=False, height=2, width=3, channels=3, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))


def test_scales_normalises_and_puts_channels_first():
    images = np.zeros((2, 2, 3, 3), dtype=np.uint8)
    images[1, 0, 2] = (255, 51, 102)
    result = preprocess(images, RGB)
    assert result.shape == (2, 3, 2, 3)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result[0, :, 0, 0], [-1.0, -1.0, 0.0])
    np.testing.assert_allclose(result[1, :, 0, 2], [1.0, -0.2, 0.2], rtol=1e-6)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 2, 3, 3), dtype=np.float32),
        np.zeros((2, 3, 3), dtype=np.uint8),
        np.zeros((1, 2, 3, 1), dtype=np.uint8),
    ],
    ids=["dtype", "rank", "channels"],
)
def test_refuses_what_does_not_fit(images):
    with pytest.raises(ValueError, match="preprocess wants uint8"):
        preprocess(images, RGB)
