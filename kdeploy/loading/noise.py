"""Batches that are drawn and not read: Gaussian noise, as images or as what a generator makes images from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from kdeploy.errors import UserError
from kdeploy.loading.batches import Batch
from kdeploy.loading.seeds import seeded

NO_CLASS = -1
"""The label of what has none: cross-entropy with it is an error, and not a wrong figure."""


class NoiseBatches:
    """`count` batches an epoch of `batch` samples mean + std * N(0, 1), each drawn from (seed, epoch, batch) alone.

    There is no other state, so a training that was killed sees the batches that it would have seen. Nothing is clamped:
    with the mean and std that a network normalises with, it sees standard noise.

    shape: of a sample; mean, std: one value a channel, 0 and 1 without them. device: where the batches are wanted; they
    are drawn on the CPU, so that they are the same on every device. share: which of how many processes this is; each is
    given its part of the same batches, of two samples at least, or a UserError.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        count: int,
        batch: int,
        seed: int,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        device: torch.device | str = "cpu",
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self._rank, processes = share
        if batch < 2 * processes:
            raise UserError(f"Batch normalisation needs two samples in each process; batch is {batch}.")
        self._shape = shape
        self._count = count
        self._batch = batch
        self._seed = seed
        self._mean, self._std = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))
        self._device = device
        self._parts = torch.arange(batch).tensor_split(processes)

    def __len__(self) -> int:
        """Batches an epoch."""
        return self._count

    def epoch(self, number: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`, from `start_batch` on; both count from 0. Their labels are NO_CLASS."""
        part = self._parts[self._rank]
        sizes = tuple(len(each) for each in self._parts) if len(self._parts) > 1 else ()
        labels = torch.full((len(part),), NO_CLASS, device=self._device)
        index = part.to(self._device)
        for batch in range(start_batch, self._count):
            yield Batch(self.drawn(number, batch)[part].to(self._device), labels, index, sizes=sizes)

    def drawn(self, number: int, batch: int) -> Tensor:
        """The whole batch, whoever has its parts: `[batch, *shape]` on the CPU."""
        noise = torch.randn((self._batch, *self._shape), generator=seeded(self._seed, "noise", number, batch))
        return noise * self._std + self._mean
