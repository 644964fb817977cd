"""Images to the network's input, in NumPy: what runs on the device where preprocessing is not in the graph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdeploy.engines.base import Preprocessing


def preprocess(images: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Scale to [0, 1], subtract the channels' mean and divide by their standard deviation.

    images: uint8 `[B, H, W, C]`. Returns contiguous float32 `[B, C, H, W]`. The height and width are taken as
    they come; `read_image` makes them right. Raises ValueError where the type or the channels do not fit.
    """
    channels = preprocessing.channels
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != channels:
        raise ValueError(f"preprocess wants uint8 [B, H, W, {channels}], not {images.dtype} {list(images.shape)}")
    mean = np.asarray(preprocessing.mean, dtype=np.float32)
    std = np.asarray(preprocessing.std, dtype=np.float32)
    scaled = images.astype(np.float32) / np.float32(255)
    return np.ascontiguousarray(((scaled - mean) / std).transpose(0, 3, 1, 2))
