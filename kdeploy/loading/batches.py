"""Batches for training and for evaluation.

The order of an epoch derives from (seed, epoch) by hash, what a sample looks like from its view (`views.py`), and how
samples are mixed from (seed, epoch, batch). There is no other state: a resumed run sees exactly the batches that it
would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    view: int = 0
    mixed: Mixed | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def main_labels(self) -> Tensor:
        """The label of the larger part of each image: int64 `[B]`."""
        return self.labels if self.mixed is None or self.mixed.share >= 0.5 else self.labels[self.mixed.partner]


class TrainBatches:
    """Shuffled, augmented batches.

    The last batch of an epoch holds what remains. One single image would break batch normalisation, which needs
    two, so it joins the batch before, which then has `batch` + 1. A UserError for a batch below two and for
    fewer than two images.
    """

    def __init__(self, views: Views, *, batch: int, seed: int) -> None:
        if batch < 2 or len(views) < 2:
            raise UserError(
                f"Training needs two images a batch for batch normalisation; batch is {batch} of {len(views)}."
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
        parts = list(order.tensor_split(ends[:-1]))[start_batch:]
        for batch, (part, images) in enumerate(zip(parts, data.batches(parts), strict=True), start_batch):
            index = part.to(data.labels.device)
            shown = Batch(self._views.augmented(images, view, part), data.labels[index], index, view)
            yield self._mixed(shown, number, batch)

    def _mixed(self, batch: Batch, epoch: int, number: int) -> Batch:
        images, mixed = self._mixing(batch.images, epoch, number)
        return Batch(images, batch.labels, batch.index, batch.view, mixed)


class EvalBatches:
    """All images once, in order, unchanged."""

    def __init__(self, data: Samples, *, batch: int = 500) -> None:
        self._data = data
        self._batch = batch

    def __len__(self) -> int:
        return -(-len(self._data) // self._batch)

    def __iter__(self) -> Iterator[Batch]:
        parts = torch.split(torch.arange(len(self._data)), self._batch)
        for part, images in zip(parts, self._data.batches(parts), strict=True):
            index = part.to(self._data.labels.device)
            yield Batch(images.float().div_(255), self._data.labels[index], index)
