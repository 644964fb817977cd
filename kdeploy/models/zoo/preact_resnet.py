"""ResNet-18 with pre-activation for 32×32 images, in the form that the information-flow paper's teacher has."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdeploy.models.catalogue import network
from kdeploy.models.layers import initialise, scaled

PAPER = "He et al., Identity Mappings in Deep Residual Networks, 2016, https://arxiv.org/abs/1603.05027"


class ActivatedBlock(nn.Module):
    """Norm and ReLU before each 3×3 convolution; what is added at the end has passed the first of them, too.

    A 1×1 convolution without norm lies around them where the shape changes.
    """

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        same = stride == 1 and inputs == planes
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, planes, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, H, W]` to `[B, planes, H / stride, W / stride]`."""
        activated = F.relu(self.bn1(x))
        y: Tensor = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        kept: Tensor = self.shortcut(activated)
        return y + kept


class PreActivationResNet(nn.Module):
    """A 3×3 stem with norm and ReLU, stages `layer1` to `layer4` of two blocks each, and `fc`.

    He et al. add the block's input as it is and put a norm and a ReLU behind the last block. The paper's code does
    neither, so that the embedding has values below 0; its figures rest on that, and so does this network.
    """

    def __init__(self, *, classes: int, channels: int, width: float) -> None:
        super().__init__()
        first, second, third, fourth = (scaled(planes, width) for planes in (64, 128, 256, 512))
        self.conv1 = nn.Conv2d(channels, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.layer1 = _stage(first, first, 1)
        self.layer2 = _stage(first, second, 2)
        self.layer3 = _stage(second, third, 2)
        self.layer4 = _stage(third, fourth, 2)
        self.fc = nn.Linear(fourth, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, channels, H, W]` to logits `[B, classes]`."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def _stage(inputs: int, planes: int, stride: int) -> nn.Sequential:
    return nn.Sequential(ActivatedBlock(inputs, planes, stride), ActivatedBlock(planes, planes, 1))


@network(paper=PAPER, parameters={10: 11_171_274})
def preact_resnet18(classes: int, channels: int, width: float) -> nn.Module:
    """Pre-activation, 64/128/256/512 channels, no norm behind the last block: the information-flow teacher."""
    return PreActivationResNet(classes=classes, channels=channels, width=width)
