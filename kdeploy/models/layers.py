"""What several families of the zoo share: scaling of channels, a convolution with its norm, the start of weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
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
    """Channel shuffle (ShuffleNet, figure 1): `[B, groups · n, H, W]` with channels regrouped as n · groups.

    Channels last stay so: the other form would hand every layer behind it, and its gradients, the wrong layout.
    """
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        by_pixel = torch.unflatten(x.permute(0, 2, 3, 1), 3, (groups, -1))
        return by_pixel.transpose(3, 4).flatten(3, 4).permute(0, 3, 1, 2)
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


class BatchNorm(nn.BatchNorm2d):
    """Batch norm of `[B, C, H, W]` that takes its running statistics where a batch is one value a channel.

    That is where B = H = W = 1: a variance does not exist, and torch's own raises an error in training mode.
    """

    def forward(self, features: Tensor) -> Tensor:
        if self.training and features.shape[0] * features.shape[2] * features.shape[3] == 1:
            return F.batch_norm(features, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(features)
