"""Batches for training and for evaluation.

The order of an epoch derives from (seed, epoch) and the changes to a batch from (seed, epoch, batch), by hash.
There is no other state: a resumed run sees exactly the batches that it would have seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kdeploy.errors import UserError
from kdeploy.loading.augment import crop_and_flip
from kdeploy.loading.tensors import TensorSet
from kdeploy.recipe.schema import AugmentSpec


@dataclass(frozen=True)
class Batch:
    """images: float32 `[B, C, H, W]` in [0, 1]; labels: int64 `[B]`; index: int64 `[B]` in the data set."""

    images: Tensor
    labels: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.labels)


class TrainBatches:
    """Shuffled, augmented batches.

    The last batch of an epoch holds what remains. One single image would break batch normalisation, which needs
    two, so it joins the batch before, which then has `batch` + 1. A UserError for a batch below two and for
    fewer than two images.
    """

    def __init__(self, data: TensorSet, *, batch: int, seed: int, augment: AugmentSpec) -> None:
        if batch < 2 or len(data) < 2:
            raise UserError(
                f"Training needs two images a batch for batch normalisation; batch is {batch} of {len(data)}."
            )
        self._data = data
        self._batch = batch
        self._seed = seed
        self._augment = augment

    def __len__(self) -> int:
        """Batches an epoch."""
        whole, rest = divmod(len(self._data), self._batch)
        return whole + (rest > 1) if whole else 1

    def epoch(self, number: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`, from `start_batch` on; both count from 0."""
        device = self._data.images.device
        order = torch.randperm(len(self._data), generator=_generator(self._seed, number)).to(device)
        for batch in range(start_batch, len(self)):
            end = len(order) if batch == len(self) - 1 else (batch + 1) * self._batch
            index = order[batch * self._batch : end]
            images = crop_and_flip(
                self._data.images[index],
                crop=self._augment.crop,
                flip=self._augment.flip,
                generator=_generator(self._seed, number, batch),
            )
            yield Batch(_to_unit(images), self._data.labels[index], index)


class EvalBatches:
    """All images once, in order, unchanged."""

    def __init__(self, data: TensorSet, *, batch: int = 500) -> None:
        self._data = data
        self._batch = batch

    def __len__(self) -> int:
        return -(-len(self._data) // self._batch)

    def __iter__(self) -> Iterator[Batch]:
        index = torch.arange(len(self._data), device=self._data.images.device)
        for start in range(0, len(self._data), self._batch):
            part = slice(start, start + self._batch)
            yield Batch(_to_unit(self._data.images[part]), self._data.labels[part], index[part])


def _to_unit(images: Tensor) -> Tensor:
    return images.float().div_(255)


def _generator(*key: int) -> torch.Generator:
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
