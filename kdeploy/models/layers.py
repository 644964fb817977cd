"""What several families of the zoo share: scaling of channels and the start of weights."""

from __future__ import annotations

from torch import nn


def scaled(channels: int, width: float, divisor: int = 1) -> int:
    """`channels` times `width`, rounded to the nearest multiple of `divisor` that is not 0."""
    return divisor * max(1, round(channels * width / divisor))


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
