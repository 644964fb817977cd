"""What a source gives: images and labels as NumPy arrays, or as something that gives arrays when it is asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class Images(Protocol):
    """uint8 `[N, H, W, C]`: an array, a memory-mapped file, or pictures that are decoded at each access."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, which: Any, /) -> Any:
        """An array: one image `[H, W, C]` for a number, `[n, H, W, C]` for a slice or an array of numbers."""


@dataclass(frozen=True)
class Rows:
    """Some images of `store`, in an order of their own: nothing is read before it is asked for."""

    store: Images
    index: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.index), *self.store.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.store.dtype

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, which: Any, /) -> Any:
        return self.store[self.index[which]]


@dataclass(frozen=True)
class ImageSet:
    """Images with their classes.

    images: uint8 `[N, H, W, C]` with C = 1 or 3; labels: int64 `[N]`, each in `[0, len(classes))`.
    """

    images: Images
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def streams(self) -> bool:
        """Whether the images are decoded at each access, which is slow: they should be read in large parts."""
        store = self.images.store if isinstance(self.images, Rows) else self.images
        return not isinstance(store, np.ndarray)

    def take(self, index: NDArray[np.int64]) -> ImageSet:
        """The images at `index`, in its order; only those of an array in memory are copied."""
        return replace(self, images=_rows(self.images, index), labels=self.labels[index])

    def between(self, start: int, stop: int) -> ImageSet:
        """The images from `start` up to `stop`, without a copy."""
        if isinstance(self.images, np.ndarray):
            return replace(self, images=self.images[start:stop], labels=self.labels[start:stop])
        return self.take(np.arange(start, stop))


def _rows(images: Images, index: NDArray[np.int64]) -> Images:
    if isinstance(images, Rows):
        return Rows(images.store, images.index[index])
    if isinstance(images, np.ndarray) and not isinstance(images, np.memmap):
        copied: NDArray[np.uint8] = images[index]
        return copied
    return Rows(images, index)


@dataclass(frozen=True)
class Source:
    """Everything a source holds: train always, test where the data set has one of its own."""

    train: ImageSet
    test: ImageSet | None


@dataclass(frozen=True)
class Splits:
    """The three separate parts: train to learn from, validation to choose on, test for the final figure.

    Where a procedure opens no training images, train and validation are empty.
    """

    train: ImageSet
    validation: ImageSet
    test: ImageSet

    @classmethod
    def test_alone(cls, test: ImageSet) -> Splits:
        """Nothing to learn from and nothing to choose on."""
        return cls(test.between(0, 0), test.between(0, 0), test)

    @property
    def has_training_images(self) -> bool:
        return len(self.train) > 0

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels
