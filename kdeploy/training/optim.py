"""Optimisers, and the learning rate as a pure function of progress."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from kdeploy.recipe.schema import TrainSpec


def make_optimizer(parameters: Iterable[nn.Parameter], spec: TrainSpec) -> torch.optim.Optimizer:
    """The optimiser of a recipe over `parameters`, fused where torch has a fused form."""
    if spec.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=spec.lr, weight_decay=spec.weight_decay, fused=True)
    if spec.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=spec.lr, weight_decay=spec.weight_decay, fused=True)
    return torch.optim.SGD(
        parameters,
        lr=spec.lr,
        momentum=spec.momentum,
        nesterov=spec.nesterov,
        weight_decay=spec.weight_decay,
        fused=True,
    )


def learning_rate(spec: TrainSpec, progress: float) -> float:
    """The learning rate after `progress` epochs (a fraction inside an epoch), from 0 to `spec.epochs`.

    cosine: lr * (1 + cos(pi * progress / epochs)) / 2. multistep: lr * gamma^(milestones passed), where a
    milestone m means that epoch m+1, counted from 1, is the first at the lower rate. A warm-up multiplies
    by progress / warmup_epochs until that reaches 1.
    """
    rate = spec.lr
    if spec.schedule == "cosine":
        rate *= (1 + math.cos(math.pi * min(progress / spec.epochs, 1.0))) / 2
    elif spec.schedule == "multistep":
        rate *= spec.gamma ** sum(progress >= milestone for milestone in spec.milestones)
    if progress < spec.warmup_epochs:
        rate *= progress / spec.warmup_epochs
    return rate
