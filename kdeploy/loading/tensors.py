"""A data set on one device: as two tensors, or decoded batch by batch by worker processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kdeploy.errors import KdeployError
from kdeploy.machine import cores
from kdeploy.sources.base import Images, ImageSet

_CHUNK = 512
_WORKERS = 8


class Samples(Protocol):
    """Images and labels: what batches are cut from. labels: int64 `[N]`, on the device of the batches."""

    @property
    def labels(self) -> Tensor: ...

    def __len__(self) -> int: ...

    def batches(self, indices: Sequence[Tensor]) -> Iterator[Tensor]:
        """The images of each of these index tensors (int64 `[B]`, on the CPU): uint8 `[B, C, H, W]` on the device."""


@dataclass(frozen=True)
class TensorSet:
    """images: uint8 `[N, C, H, W]`, contiguous; labels: int64 `[N]`."""

    images: Tensor
    labels: Tensor

    @classmethod
    def from_images(cls, images: ImageSet, device: torch.device | str) -> TensorSet:
        """Copy the images to `device`, channels first."""
        count, height, width, channels = images.images.shape
        pixels = torch.empty((count, channels, height, width), dtype=torch.uint8, device=device)
        for start in range(0, count, _CHUNK):
            pixels[start : start + _CHUNK] = _channels_first(images.images, slice(start, start + _CHUNK)).to(device)
        return cls(pixels, torch.from_numpy(images.labels.copy()).to(device))

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, indices: Sequence[Tensor]) -> Iterator[Tensor]:
        """See `Samples`."""
        return (self.images[index.to(self.images.device)] for index in indices)


@dataclass(frozen=True)
class StreamedSet:
    """Images that are decoded when their batch comes, ahead of it, by worker processes; labels: int64 `[N]`.

    The batches are those of a `TensorSet` of the same images, bit for bit: workers decode and resize, and draw nothing.
    """

    images: Images
    labels: Tensor

    @classmethod
    def from_images(cls, images: ImageSet, device: torch.device | str) -> StreamedSet:
        """The same images, nothing decoded yet."""
        return cls(images.images, torch.from_numpy(images.labels.copy()).to(device))

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, indices: Sequence[Tensor]) -> Iterator[Tensor]:
        """See `Samples`; raises a UserError for a file that has changed. One batch alone is decoded in this process."""
        device = self.labels.device
        loader = DataLoader(
            _Decoding(self.images, indices),
            batch_size=None,
            num_workers=min(_WORKERS, cores(), len(indices)) if len(indices) > 1 else 0,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # else it takes a number from the training's generator
        )
        for found in loader:
            if isinstance(found, KdeployError):
                raise found
            yield found.to(device, non_blocking=True)


def digest(data: Samples) -> str:
    """The SHA-256 over all images `[C, H, W]` in order, in hexadecimal; streamed ones are decoded for it."""
    found = hashlib.sha256()
    for images in data.batches(torch.split(torch.arange(len(data)), _CHUNK)):
        found.update(images.cpu().numpy().data)
    return found.hexdigest()


class _Decoding(Dataset[Tensor | KdeployError]):
    """Batch number in, batch out; an error is handed over as it is, without a worker's traceback around it."""

    def __init__(self, images: Images, indices: Sequence[Tensor]) -> None:
        self._images = images
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, number: int) -> Tensor | KdeployError:
        try:
            return _channels_first(self._images, self._indices[number].numpy())
        except KdeployError as error:
            return error


def _channels_first(images: Images, which: object) -> Tensor:
    """Some images as uint8 `[n, C, H, W]`, in memory of its own."""
    return torch.from_numpy(images[which].transpose(0, 3, 1, 2).copy())
