"""Batch norms that normalise by the batch before them, and running statistics measured anew.

Only batch norms are touched: dropout and its like stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdeploy.errors import UserError
from kdeploy.loading import Batch
from kdeploy.training.setup import Setup

_STATISTICS = ("running_mean", "running_var")


def batch_norms(network: nn.Module) -> dict[str, _BatchNorm]:
    """The batch norms of a network, by their paths."""
    return {path: module for path, module in network.named_modules() if isinstance(module, _BatchNorm)}


def require_batch_norms(network: nn.Module, what: str) -> None:
    """Raise UserError for a network without batch norms that keep running statistics."""
    if not any(norm.running_mean is not None for norm in batch_norms(network).values()):
        raise UserError(
            f"{what} has no batch normalisation, on whose statistics this procedure rests: take another network, or "
            "another procedure."
        )


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """For the length of the block, a network in evaluation mode normalises by the batch; its buffers are untouched.

    A batch norm without running statistics takes those of the batch, says torch: they are set aside.
    """
    aside = [
        (norm, {name: norm._buffers[name] for name in _STATISTICS})
        for norm in batch_norms(network).values()
        if norm.running_mean is not None
    ]
    for norm, found in aside:
        norm._buffers.update(dict.fromkeys(found))
    try:
        yield
    finally:
        for norm, found in aside:
            norm._buffers.update(found)


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Iterable[Batch], setup: Setup) -> None:
    """Replace running mean and variance by the means over these batches of each one's mean and variance.

    The network ends in evaluation mode. (torch.optim.swa_utils.update_bn does the same with dropout switched on.)
    """
    network.eval()
    norms = [norm for norm in batch_norms(network).values() if norm.running_mean is not None]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches, in place of a moving one
        norm.train()
    try:
        with setup.fabric.autocast():
            for batch in batches:
                network(setup.images(batch.images))
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.eval()
