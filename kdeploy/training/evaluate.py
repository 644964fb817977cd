"""Predictions of a torch network over a whole split."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from kdeploy.loading import Batch
from kdeploy.training.setup import Setup


def predict(network: nn.Module, batches: Iterable[Batch], setup: Setup) -> tuple[Tensor, Tensor]:
    """The logits `[N, classes]` (float32) and labels `[N]` of a split, on the CPU; mode and buffers untouched.

    Where several processes train, `batches` are the part of this one, and what is returned is all of it to each.
    """
    was_training = network.training
    network.eval()
    logits, labels = [], []
    with torch.inference_mode(), setup.fabric.autocast():
        for batch in batches:
            logits.append(network(setup.images(batch.images)).float())
            labels.append(batch.labels)
    network.train(was_training)
    parts = setup.processes.all([torch.cat(found).cpu() if found else None for found in (logits, labels)])
    whole = [torch.cat([part for part in each if part is not None]) for each in zip(*parts, strict=True)]
    return whole[0], whole[1]


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of rows of `logits` `[N, classes]` whose largest entry is the label's."""
    return (logits.argmax(dim=1) == labels).double().mean().item()
