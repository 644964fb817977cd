"""The image-classification networks of MLPerf Tiny: ResNet-8 as the reference builds it in Keras, and the wider one.

They differ from `resnet8`: every convolution has a bias, and the shortcut that halves has no norm. One thing differs
from the reference: where Keras's `same` pads a stride-2 convolution on two sides only, these pad all four.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdeploy.models.catalogue import network
from kdeploy.models.layers import conv_norm, initialise, scaled

PAPER = "Banbury et al., MLPerf Tiny Benchmark, 2021, https://arxiv.org/abs/2106.07597"


class ReferenceBlock(nn.Module):
    """Two 3×3 convolutions with norm; around them nothing, or a bare 1×1 convolution where the image is halved."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.first = conv_norm(inputs, planes, 3, stride, bias=True)
        self.second = conv_norm(planes, planes, 3, bias=True, relu=False)
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(inputs, planes, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, H, W]` to `[B, planes, H / stride, W / stride]`."""
        return F.relu(self.shortcut(x) + self.second(self.first(x)))


class ReferenceResNet8(nn.Module):
    """A 3×3 stem, blocks `layer1` to `layer3` of 1, 2 and 4 times `filters` channels, and `fc`."""

    def __init__(self, filters: int, *, classes: int, channels: int, width: float) -> None:
        super().__init__()
        first, second, third = (scaled(filters * times, width) for times in (1, 2, 4))
        self.stem = conv_norm(channels, first, 3, bias=True)
        self.layer1 = ReferenceBlock(first, first, 1)
        self.layer2 = ReferenceBlock(first, second, 2)
        self.layer3 = ReferenceBlock(second, third, 2)
        self.fc = nn.Linear(third, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, channels, H, W]` to logits `[B, classes]`."""
        x = self.layer3(self.layer2(self.layer1(self.stem(x))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


@network(paper=PAPER, parameters={10: 78_186})
def mlperf_tiny_resnet8(classes: int, channels: int, width: float) -> nn.Module:
    """MLPerf Tiny's ResNet-8 (IC01, 85 % on CIFAR-10): 16/32/64 channels, 77,706 parameters once norms are folded."""
    return ReferenceResNet8(16, classes=classes, channels=channels, width=width)


@network(paper=PAPER, parameters={10: 481_530})
def mlperf_tiny_resnet8_40(classes: int, channels: int, width: float) -> nn.Module:
    """MLPerf Tiny's larger ResNet-8 (IC02, 91 %): 40/80/160 channels, 480,330 parameters once norms are folded."""
    return ReferenceResNet8(40, classes=classes, channels=channels, width=width)
