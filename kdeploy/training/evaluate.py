"""Predictions of a torch network over a whole split."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from kdeploy.loading import Batch
from kdeploy.training.setup import Setup


def predict(network: nn.Module, batches: Iterable[Batch], setup: Setup) -> tuple[Tensor, Tensor]:
    """The logits `[N, classes]` (float32) and labels `[N]` of a split, on the CPU; mode and buffers untouched."""
    was_training = network.training
    network.eval()
    logits, labels = [], []
    with torch.inference_mode(), setup.fabric.autocast():
        for batch in batches:
            logits.append(network(setup.images(batch.images)).float())
            labels.append(batch.labels)
    network.train(was_training)
    return torch.cat(logits).cpu(), torch.cat(labels).cpu()


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of rows of `logits` `[N, classes]` whose largest entry is the label's."""
    return (logits.argmax(dim=1) == labels).double().mean().item()
