"""Auxiliary classifiers that branch off the stages of a network."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdeploy.methods.base import Shapes
from kdeploy.models.layers import conv_norm, initialise


def make_heads(shapes: Shapes, outputs: int) -> nn.ModuleList:
    """One head for each feature `[B, C_l, H_l, W_l]`, to logits `[B, outputs]`: layers, average pooling, linear.

    The layers are the network's own (`Shapes.onward`), else a bottleneck block for each later stage, of its channels
    and with the stride that its size asks for, and for the last stage one of its own channels with stride 1.
    """
    heads = nn.ModuleList()
    for number, shape in enumerate(shapes.features):
        layers = shapes.onward[number]() if shapes.onward else _blocks(shapes.features[number:])
        heads.append(
            nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(_width(layers, shape), outputs))
        )
    return heads


def _width(layers: nn.Module, shape: tuple[int, int, int]) -> int:
    """Channels of what these layers make of a map of this shape."""
    with torch.no_grad():
        width = int(layers.eval()(torch.zeros(1, *shape)).shape[1])
    layers.train()
    return width


def _blocks(stages: Sequence[tuple[int, int, int]]) -> nn.Sequential:
    """From the first of these shapes (C, H, W) to the last."""
    blocks = [
        _Bottleneck(here[0], there[0], max(1, round(here[1] / there[1]))) for here, there in itertools.pairwise(stages)
    ]
    made = nn.Sequential(*blocks or [_Bottleneck(stages[-1][0], stages[-1][0], 1)])
    initialise(made)
    return made


class _Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions, a quarter as wide inside, and a 1x1 convolution around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inside = -(-outputs // 4)
        self.body = nn.Sequential(
            conv_norm(inputs, inside), conv_norm(inside, inside, 3, stride), conv_norm(inside, outputs, relu=False)
        )
        self.shortcut = conv_norm(inputs, outputs, 1, stride, relu=False)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.body(features) + self.shortcut(features))
