"""Resizing of whole sets with Pillow: bilinear, antialiased when shrinking."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from kdeploy import events
from kdeploy.sources.base import ImageSet, Source


def resize(source: Source, size: int | None) -> Source:
    """Both parts at `size` x `size` pixels; unchanged where they have that size already or `size` is None."""
    return Source(resized(source.train, size), None if source.test is None else resized(source.test, size))


def resized(images: ImageSet, size: int | None) -> ImageSet:
    """The same for one part."""
    count, height, width, channels = images.images.shape
    if size is None or (height, width) == (size, size):
        return images
    out = np.empty((count, size, size, channels), dtype=np.uint8)
    with events.task(f"resizing {count} images to {size}x{size}", count) as bar:
        for slot, pixels in zip(out, images.images[:], strict=True):
            picture = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
            resized = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))
            slot[...] = resized.reshape(slot.shape)
            bar.advance()
    return replace(images, images=out)
