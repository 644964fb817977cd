"""Wide residual networks for 32×32 images: pre-activation blocks, 6n+4 layers, `widen` times as wide."""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

from kdeploy.models.catalogue import network
from kdeploy.models.layers import initialise, scaled

PAPER = "Zagoruyko and Komodakis, Wide Residual Networks, 2016, https://arxiv.org/abs/1605.07146"


class PreActivationBlock(nn.Module):
    """Norm and ReLU before each 3×3 convolution; a 1×1 convolution around them where the width changes."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        same = stride == 1 and inputs == planes
        self.shortcut = None if same else nn.Conv2d(inputs, planes, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, H, W]` to `[B, planes, H / stride, W / stride]`."""
        activated = F.relu(self.bn1(x))
        y: Tensor = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        kept: Tensor = x if self.shortcut is None else self.shortcut(activated)
        return kept + y


class WideResNet(nn.Module):
    """A 3×3 stem of 16 channels, stages `layer1` to `layer3` of 16/32/64 times `widen`, a last norm, and `fc`."""

    def __init__(self, depth: int, widen: int, *, classes: int, channels: int, width: float) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        stem, first, second, third = (scaled(planes, width) for planes in (16, 16 * widen, 32 * widen, 64 * widen))
        self.conv1 = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
        self.stages = ["layer1", "layer2", "layer3"]
        self._blocks = blocks
        self._planes = (first, second, third)
        self.layer1 = _stage(blocks, stem, first, 1)
        self.layer2 = _stage(blocks, first, second, 2)
        self.layer3 = _stage(blocks, second, third, 2)
        self.bn = nn.BatchNorm2d(third)
        self.fc = nn.Linear(third, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, channels, H, W]` to logits `[B, classes]`."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        logits: Tensor = self.fc(F.relu(self.bn(x)).mean((2, 3)))
        return logits

    def onward(self, stage: str) -> nn.Sequential:
        """New layers from the output of `stage` to the last norm and ReLU (`kdeploy.models.stages`)."""
        position = self.stages.index(stage)
        planes, last = self._planes[position:], self._planes[-1]
        layers = [_stage(self._blocks, inputs, outputs, 2) for inputs, outputs in itertools.pairwise(planes)]
        layers = layers or [_stage(self._blocks, last, last, 1)]
        made = nn.Sequential(*layers, nn.BatchNorm2d(last), nn.ReLU())
        initialise(made)
        return made


def _stage(blocks: int, inputs: int, planes: int, stride: int) -> nn.Sequential:
    rest = [PreActivationBlock(planes, planes, 1) for _ in range(blocks - 1)]
    return nn.Sequential(PreActivationBlock(inputs, planes, stride), *rest)


@network(paper=PAPER, parameters={100: 703_284})
def wrn_16_2(classes: int, channels: int, width: float) -> nn.Module:
    """16 layers, twice as wide (32/64/128 channels)."""
    return WideResNet(16, 2, classes=classes, channels=channels, width=width)


@network(paper=PAPER, parameters={100: 569_780})
def wrn_40_1(classes: int, channels: int, width: float) -> nn.Module:
    """40 layers, 16/32/64 channels."""
    return WideResNet(40, 1, classes=classes, channels=channels, width=width)


@network(paper=PAPER, parameters={100: 2_255_156})
def wrn_40_2(classes: int, channels: int, width: float) -> nn.Module:
    """40 layers, twice as wide (32/64/128 channels)."""
    return WideResNet(40, 2, classes=classes, channels=channels, width=width)
