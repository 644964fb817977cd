"""Optimisers, and the learning rate as a pure function of progress."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import ParamsT

from kdeploy.recipe.schema import TrainSpec

LR_FACTOR = "lr_factor"
"""Key of a parameter group: its learning rate as a multiple of the recipe's; 1 where there is none."""


@dataclass(frozen=True)
class Apart:
    """Parameters that are not trained as the recipe says of all.

    lr_factor: their learning rate as a multiple of the recipe's; weight_decay: whether they have the recipe's, or none.
    """

    parameters: Sequence[nn.Parameter]
    lr_factor: float = 1.0
    weight_decay: bool = True


def grouped(parameters: Sequence[nn.Parameter], apart: Sequence[Apart]) -> ParamsT:
    """What an optimiser is given: the parameters as they are, or, where some are apart, in groups."""
    if not apart:
        return parameters
    groups: list[dict[str, Any]] = []
    rest = list(parameters)
    for one in apart:
        own = set(one.parameters)
        decay = {} if one.weight_decay else {"weight_decay": 0.0}
        groups.append({"params": [each for each in rest if each in own], LR_FACTOR: one.lr_factor, **decay})
        rest = [each for each in rest if each not in own]
    return [{"params": rest}, *groups]


def make_optimizer(parameters: ParamsT, spec: TrainSpec) -> torch.optim.Optimizer:
    """The optimiser of a recipe over `parameters`, or groups of them, fused where torch has a fused form."""
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
