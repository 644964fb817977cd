"""Whole batches for methods that compare samples with one another, where each process has a part of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kdeploy.loading import Batch
from kdeploy.methods.base import Context, Needs, Outputs
from kdeploy.training.processes import Processes


def compared(
    gathering: Gathering | None, need: Needs, outputs: Sequence[Outputs], batch: Batch, context: Context
) -> tuple[list[Outputs], Tensor, Context]:
    """The outputs, labels and context that a method is given: of the whole batch, if it compares samples.

    As they are without `gathering`, and where this process has all of the batch.
    """
    if gathering is None or need.whole_batch == "no" or not batch.sizes:
        return list(outputs), batch.labels, context
    index = None if context.index is None else gathering.rows(context.index, batch)
    whole = [gathering.outputs(each, batch) for each in outputs]
    return whole, gathering.rows(batch.labels, batch), replace(context, index=index)


class Gathering:
    """Puts the rows of all processes' parts together, in the order of the batch."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    def outputs(self, outputs: Outputs, batch: Batch) -> Outputs:
        """Those of the whole batch."""
        return Outputs(
            logits=self.rows(outputs.logits, batch),
            features=[self.rows(feature, batch) for feature in outputs.features],
            embedding=None if outputs.embedding is None else self.rows(outputs.embedding, batch),
        )

    def rows(self, tensor: Tensor, batch: Batch) -> Tensor:
        """The rows of all parts, of a tensor that has as many for each image; with its gradient."""
        an_image = len(tensor) // len(batch)
        rows: Tensor = _Gathered.apply(tensor, self._processes, tuple(an_image * size for size in batch.sizes))  # type: ignore[no-untyped-call]
        return rows


class _Gathered(torch.autograd.Function):
    """All processes' rows of a tensor `[size, ...]`, with a gradient for this one's.

    The gradient is that of a loss that every process computes from the same rows. The loop multiplies each process's
    loss by its weight, size / sum of sizes, and adds the gradients up: so those of what comes behind the gathering, an
    adapter's, which every process computes whole, add up to the whole. A row's is computed by its own process alone,
    and is divided by that weight here. Nothing is sent on the way back.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, processes: Processes, sizes: tuple[int, ...]) -> Tensor:
        ctx.rank, ctx.sizes = processes.rank, sizes
        return processes.rows(tensor, sizes)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        own = torch.split(gradient, list(ctx.sizes))[ctx.rank]
        return own * (sum(ctx.sizes) / ctx.sizes[ctx.rank]), None, None
