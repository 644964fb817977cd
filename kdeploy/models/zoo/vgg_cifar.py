"""VGG for 32×32 images, as in the CIFAR-100 tables: batch norm, one linear layer, no pooling after the fourth stage."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from kdeploy.models.catalogue import network
from kdeploy.models.layers import conv_norm, initialise, scaled

PAPER = "Simonyan and Zisserman, Very Deep Convolutional Networks, 2014, https://arxiv.org/abs/1409.1556"


class VGG(nn.Module):
    """Stages `layer1` to `layer5` of 3×3 convolutions, 2×2 max-pooling after the first three, and `fc`."""

    def __init__(self, stages: Sequence[Sequence[int]], *, classes: int, channels: int, width: float) -> None:
        super().__init__()
        self.stages = [f"layer{number}" for number in range(1, len(stages) + 1)]
        inputs = channels
        for stage, planes in zip(self.stages, stages, strict=True):
            layers = []
            for outputs in (scaled(count, width) for count in planes):
                layers.append(conv_norm(inputs, outputs, 3, bias=True))
                inputs = outputs
            self.add_module(stage, nn.Sequential(*layers))
        self.fc = nn.Linear(inputs, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, channels, H, W]`, H and W at least 8, to logits `[B, classes]`."""
        for number, stage in enumerate(self.stages, 1):
            x = self.get_submodule(stage)(x)
            x = F.max_pool2d(x, 2) if number <= 3 else x
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


@network(paper=PAPER, parameters={100: 3_965_028})
def vgg8(classes: int, channels: int, width: float) -> nn.Module:
    """One convolution a stage: 64/128/256/512/512 channels."""
    return VGG(((64,), (128,), (256,), (512,), (512,)), classes=classes, channels=channels, width=width)


@network(paper=PAPER, parameters={100: 9_462_180})
def vgg13(classes: int, channels: int, width: float) -> nn.Module:
    """Two convolutions a stage: 64/128/256/512/512 channels."""
    stages = [(planes, planes) for planes in (64, 128, 256, 512, 512)]
    return VGG(stages, classes=classes, channels=channels, width=width)
