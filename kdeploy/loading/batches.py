"""Batches for training and for evaluation.

The order of an epoch derives from (seed, epoch) by hash, what a sample looks like from its view (`views.py`), and how
samples are mixed from (seed, epoch, batch). There is no other state: a resumed run sees exactly the batches that it
would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from kdeploy.errors import UserError
from kdeploy.loading.mixing import Mixed, Mixing
from kdeploy.loading.seeds import seeded
from kdeploy.loading.tensors import Samples
from kdeploy.loading.views import Views


@dataclass(frozen=True)
class Batch:
    """images: float32 `[B, C, H, W]` in [0, 1]; labels: int64 `[B]`; index: int64 `[B]` in the data set.

    view: which of the augmented views of their samples these are; 0 where there is only one. mixed: with what each
    image was mixed, and how much of it is its own; None where it is all its own.
    sizes: where several processes share a batch, the size of each one's part, in order, of which this is one; empty
    where this is the whole batch.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    view: int = 0
    mixed: Mixed | None = None
    sizes: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def main_labels(self) -> Tensor:
        """The label of the larger part of each image: int64 `[B]`."""
        return self.labels if self.mixed is None or self.mixed.share >= 0.5 else self.labels[self.mixed.partner]


class Batches(Protocol):
    """What a training goes through, epoch by epoch: the same for the same numbers, whatever was asked for before."""

    def __len__(self) -> int:
        """Batches an epoch."""

    def epoch(self, number: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`, from `start_batch` on; both count from 0."""


class TrainBatches:
    """Shuffled, augmented batches.

    The last batch of an epoch holds what remains. One single image would break batch normalisation, which needs
    two, so it joins the batch before, which then has `batch` + 1. A UserError for a batch below two and for
    fewer than two images.

    share: which of how many processes this is, such as (0, 2). Each is given its part of the same batches, contiguous
    and in order, none smaller than two images; a batch that is too small for that is given whole to each of them. A
    UserError where all are.
    """

    def __init__(self, views: Views, *, batch: int, seed: int, share: tuple[int, int] = (0, 1)) -> None:
        if batch < 2 or len(views) < 2:
            raise UserError(
                f"Training needs two images a batch for batch normalisation; batch is {batch} of {len(views)}."
            )
        self._rank, self._processes = share
        if min(batch, len(views)) < 2 * self._processes:
            raise UserError(
                f"Batches of {min(batch, len(views))} images cannot be shared by {self._processes} processes, each of "
                "which needs two: set a larger batch, or fewer --devices."
            )
        self._views = views
        self._mixing = Mixing(views.augment, seed=seed)
        self._batch = batch
        self._seed = seed

    def __len__(self) -> int:
        """Batches an epoch."""
        whole, rest = divmod(len(self._views), self._batch)
        return whole + (rest > 1) if whole else 1

    def epoch(self, number: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`, from `start_batch` on; both count from 0."""
        data, view = self._views.data, self._views.of_epoch(number)
        order = torch.randperm(len(data), generator=seeded(self._seed, number))
        ends = [*range(self._batch, len(self) * self._batch, self._batch), len(order)]
        shared = [self._part(whole) for whole in order.tensor_split(ends[:-1])[start_batch:]]
        parts = [part for part, _ in shared]
        for batch, ((part, sizes), images) in enumerate(zip(shared, data.batches(parts), strict=True), start_batch):
            index = part.to(data.labels.device)
            shown = self._views.augmented(images, view, part)
            mixed_images, mixed = self._mixing(shown, number, batch)
            yield Batch(mixed_images, data.labels[index], index, view, mixed, sizes)

    def _part(self, index: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """This process's part of a batch, and the sizes of all parts."""
        if self._processes == 1 or len(index) < 2 * self._processes:
            return index, ()
        parts = index.tensor_split(self._processes)
        return parts[self._rank], tuple(len(part) for part in parts)


class EvalBatches:
    """All images once, in order, unchanged.

    share: which of how many processes this is; their parts, in order, are all images once. A part may be empty.
    """

    def __init__(self, data: Samples, *, batch: int = 500, share: tuple[int, int] = (0, 1)) -> None:
        rank, processes = share
        self._data = data
        self._batch = batch
        self._begin, self._end = (len(data) * number // processes for number in (rank, rank + 1))

    def __len__(self) -> int:
        return -(-(self._end - self._begin) // self._batch)

    def __iter__(self) -> Iterator[Batch]:
        parts = torch.split(torch.arange(self._begin, self._end), self._batch) if len(self) else ()
        for part, images in zip(parts, self._data.batches(parts), strict=True):
            index = part.to(self._data.labels.device)
            yield Batch(images.float().div_(255), self._data.labels[index], index)
