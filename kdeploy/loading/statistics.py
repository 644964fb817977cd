"""Mean and standard deviation of a data set's channels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdeploy.errors import UserError
from kdeploy.recipe.schema import NormalizeSpec
from kdeploy.sources.base import ImageSet

_CHUNK = 512
_DIGITS = 6


def channel_statistics(images: ImageSet) -> NormalizeSpec:
    """Per-channel mean and standard deviation over all pixels, scaled to [0, 1], rounded to six digits.

    Exact, from counts of the 256 values. A channel that is the same everywhere cannot be normalised and is a
    UserError.
    """
    values = np.arange(256) / 255
    means, stds = [], []
    for channel, counts in enumerate(_histograms(images)):
        mean = float(np.average(values, weights=counts))
        std = round(float(np.sqrt(np.average((values - mean) ** 2, weights=counts))), _DIGITS)
        if std == 0:
            raise UserError(
                f"Channel {channel} of the training images has the value {mean * 255:.0f} everywhere, so it cannot be "
                "normalised by its own statistics; set data.normalize in the recipe."
            )
        means.append(round(mean, _DIGITS))
        stds.append(std)
    return NormalizeSpec(mean=tuple(means), std=tuple(stds))


def _histograms(images: ImageSet) -> NDArray[np.int64]:
    """How often each channel has each value: `[C, 256]`; one pass, as images may be decoded for it."""
    counts = np.zeros((images.images.shape[3], 256), dtype=np.int64)
    for start in range(0, len(images), _CHUNK):
        pixels = images.images[start : start + _CHUNK]
        for channel, count in enumerate(counts):
            count += np.bincount(pixels[..., channel].ravel(), minlength=256)
    return counts
