"""Batches for training and for evaluation.

The order of an epoch derives from (seed, epoch) by hash, and what a sample looks like from its view (`views.py`).
There is no other state: a resumed run sees exactly the batches that it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kdeploy.errors import UserError
from kdeploy.loading.tensors import TensorSet
from kdeploy.loading.views import Views, seeded


@dataclass(frozen=True)
class Batch:
    """images: float32 `[B, C, H, W]` in [0, 1]; labels: int64 `[B]`; index: int64 `[B]` in the data set.

    view: which of the augmented views of their samples these are; 0 where there is only one.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    view: int = 0

    def __len__(self) -> int:
        return len(self.labels)


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
        self._batch = batch
        self._seed = seed

    def __len__(self) -> int:
        """Batches an epoch."""
        whole, rest = divmod(len(self._views), self._batch)
        return whole + (rest > 1) if whole else 1

    def epoch(self, number: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`, from `start_batch` on; both count from 0."""
        data, view = self._views.data, self._views.of_epoch(number)
        order = torch.randperm(len(data), generator=seeded(self._seed, number)).to(data.images.device)
        for batch in range(start_batch, len(self)):
            end = len(order) if batch == len(self) - 1 else (batch + 1) * self._batch
            index = order[batch * self._batch : end]
            yield Batch(self._views.images(view, index), data.labels[index], index, view)


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
            yield Batch(self._data.images[part].float().div_(255), self._data.labels[part], index[part])
