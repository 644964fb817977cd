"""What a source gives: images and labels as NumPy arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageSet:
    """Images in memory.

    images: uint8 `[N, H, W, C]` with C = 1 or 3; labels: int64 `[N]`, each in `[0, len(classes))`.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.int64]) -> ImageSet:
        """The images at `index`, in its order."""
        return replace(self, images=self.images[index], labels=self.labels[index])


@dataclass(frozen=True)
class Source:
    """Everything a source holds: train always, test where the data set has one of its own."""

    train: ImageSet
    test: ImageSet | None


@dataclass(frozen=True)
class Splits:
    """The three separate parts: train to learn from, validation to choose on, test for the final figure."""

    train: ImageSet
    validation: ImageSet
    test: ImageSet

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels
