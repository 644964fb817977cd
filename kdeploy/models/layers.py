"""What several families of the zoo share: scaling of channels, a convolution with its norm, the start of weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def scaled(channels: int, width: float, divisor: int = 1) -> int:
    """`channels` times `width`, rounded to the nearest multiple of `divisor`, and never less than one of it."""
    return divisor * max(1, round(channels * width / divisor))


def conv_norm(
    inputs: int,
    outputs: int,
    kernel: int = 1,
    stride: int = 1,
    *,
    groups: int = 1,
    bias: bool = False,
    relu: bool = True,
) -> nn.Sequential:
    """Convolution that keeps height and width (over `stride`), batch norm, and ReLU unless told otherwise."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=bias),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Channel shuffle (ShuffleNet, figure 1): `[B, groups · n, H, W]` with channels regrouped as n · groups."""
    return torch.unflatten(x, 1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def initialise(network: nn.Module) -> None:
    """Give convolutions He's normal start (fan out, https://arxiv.org/abs/1502.01852), batch norms 1 and 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
