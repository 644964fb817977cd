"""Parameters and multiply-accumulates of a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kdeploy.models.catalogue import create
from kdeploy.recipe.schema import NetworkSpec


@dataclass(frozen=True)
class Counts:
    """parameters: trained ones, frozen or not, so batch norm's scale and shift but not its running statistics;
    macs: multiply-accumulates of convolutions and matrix products for one image."""

    parameters: int
    macs: int


def count(network: nn.Module, shape: tuple[int, int, int]) -> Counts:
    """Count for one image of shape (C, H, W). The network is left as it was, buffers and mode included."""
    counter = FlopCounterMode(display=False)
    with evaluating(network), counter:
        network(blank(network, shape))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Counts(parameters, counter.get_total_flops() // 2)


def parameters_of(name: str, *, classes: int, channels: int) -> int:
    """Parameters of a network of the zoo, counted without making room for them."""
    with torch.device("meta"):
        network = create(NetworkSpec(model=name), classes=classes, channels=channels)
    return sum(parameter.numel() for parameter in network.parameters())


def blank(network: nn.Module, shape: tuple[int, int, int]) -> torch.Tensor:
    """A black image `[1, C, H, W]` where the network is and of its type."""
    like = next(network.parameters(), torch.empty(0))
    return torch.zeros((1, *shape), device=like.device, dtype=like.dtype)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put all modules into evaluation mode without gradients, and each back into its own mode afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
