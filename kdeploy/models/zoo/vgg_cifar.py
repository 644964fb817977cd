"""VGG for 32×32 images, as in the CIFAR-100 tables: batch norm, one linear layer, no pooling after the fourth stage."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from kdeploy.models.catalogue import network
from kdeploy.models.layers import conv_norm, initialise, scaled

PAPER = "Simonyan and Zisserman, Very Deep Convolutional Networks, 2014, https://arxiv.org/abs/1409.1556"
_POOLED = 3
"""Stages that 2×2 max-pooling follows."""


class VGG(nn.Module):
    """Stages `layer1` to `layer5` of 3×3 convolutions, 2×2 max-pooling after the first three, and `fc`."""

    def __init__(self, stages: Sequence[Sequence[int]], *, classes: int, channels: int, width: float) -> None:
        super().__init__()
        self.stages = [f"layer{number}" for number in range(1, len(stages) + 1)]
        inputs = channels
        self._widths: dict[str, list[int]] = {}  # of each stage: channels in, then those of each convolution
        for stage, planes in zip(self.stages, stages, strict=True):
            self._widths[stage] = [inputs, *(scaled(count, width) for count in planes)]
            self.add_module(stage, _convolutions(self._widths[stage]))
            inputs = self._widths[stage][-1]
        self.fc = nn.Linear(inputs, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, channels, H, W]`, H and W at least 8, to logits `[B, classes]`."""
        for number, stage in enumerate(self.stages, 1):
            x = self.get_submodule(stage)(x)
            x = F.max_pool2d(x, 2) if number <= _POOLED else x
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits

    def onward(self, stage: str) -> nn.Sequential:
        """New layers from the output of `stage` to a map as deep as the last stage's (`kdeploy.models.stages`)."""
        position = self.stages.index(stage) + 1
        layers: list[nn.Module] = []
        for number, later in enumerate(self.stages[position:], position):
            layers += [nn.MaxPool2d(2)] if number <= _POOLED else []
            layers.append(_convolutions(self._widths[later]))
        width = self._widths[stage][-1]
        made = nn.Sequential(*layers or [_convolutions([width] * len(self._widths[stage]))])
        initialise(made)
        return made


def _convolutions(widths: Sequence[int]) -> nn.Sequential:
    return nn.Sequential(*(conv_norm(*pair, 3, bias=True) for pair in itertools.pairwise(widths)))


@network(paper=PAPER, parameters={100: 3_965_028})
def vgg8(classes: int, channels: int, width: float) -> nn.Module:
    """One convolution a stage: 64/128/256/512/512 channels."""
    return VGG(((64,), (128,), (256,), (512,), (512,)), classes=classes, channels=channels, width=width)


@network(paper=PAPER, parameters={100: 9_462_180})
def vgg13(classes: int, channels: int, width: float) -> nn.Module:
    """Two convolutions a stage: 64/128/256/512/512 channels."""
    stages = [(planes, planes) for planes in (64, 128, 256, 512, 512)]
    return VGG(stages, classes=classes, channels=channels, width=width)
