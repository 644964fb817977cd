"""ShuffleNet for 32×32 images, as in the CIFAR-100 tables: three groups behind a 1×1 stem without pooling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdeploy.errors import UserError
from kdeploy.models.catalogue import network
from kdeploy.models.layers import conv_norm, initialise, scaled, shuffle

PAPER = "Zhang et al., ShuffleNet, 2017, https://arxiv.org/abs/1707.01083"
_GROUPS = 3
_BOTTLENECK = 4  # a unit works on a quarter of its output channels


class ShuffleUnit(nn.Module):
    """Grouped 1×1, shuffle, 3×3 on each channel, grouped 1×1 (figure 2).

    With stride 1 the input is added; with stride 2 its average pool is set beside, so `outputs` includes `inputs`.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, first: bool) -> None:
        super().__init__()
        made = outputs - inputs if stride == 2 else outputs
        hidden = made // _BOTTLENECK
        self.halves = stride == 2
        self.groups = 1 if first else _GROUPS  # section 3.2: the stem is too narrow to be cut into groups
        self.reduce = conv_norm(inputs, hidden, groups=self.groups)
        self.depthwise = conv_norm(hidden, hidden, 3, stride, groups=hidden)
        self.expand = conv_norm(hidden, made, groups=_GROUPS, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, H, W]` to `[B, outputs, H / stride, W / stride]`."""
        y: Tensor = self.expand(self.depthwise(shuffle(self.reduce(x), self.groups)))
        if self.halves:
            return F.relu(torch.cat([y, F.avg_pool2d(x, 3, 2, padding=1)], 1))
        return F.relu(x + y)


class ShuffleNetV1(nn.Module):
    """A 1×1 stem, stages `layer1` to `layer3` of 4, 8 and 4 units, each of which halves the image, and `fc`."""

    def __init__(self, *, classes: int, channels: int, width: float) -> None:
        super().__init__()
        divisor = _GROUPS * _BOTTLENECK
        stem, first, second, third = (scaled(planes, width, divisor) for planes in (24, 240, 480, 960))
        if not stem < first < second < third:
            raise UserError(f"shufflenetv1 at width {width:g} has no channels left to double: its width starts at 0.1.")
        self.stem = conv_norm(channels, stem)
        self.layer1 = _stage(4, stem, first, first=True)
        self.layer2 = _stage(8, first, second)
        self.layer3 = _stage(4, second, third)
        self.fc = nn.Linear(third, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, channels, H, W]` to logits `[B, classes]`."""
        x = self.layer3(self.layer2(self.layer1(self.stem(x))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def _stage(units: int, inputs: int, outputs: int, *, first: bool = False) -> nn.Sequential:
    rest = [ShuffleUnit(outputs, outputs, 1, first=False) for _ in range(units - 1)]
    return nn.Sequential(ShuffleUnit(inputs, outputs, 2, first=first), *rest)


@network(paper=PAPER, parameters={100: 949_258})
def shufflenetv1(classes: int, channels: int, width: float) -> nn.Module:
    """Three groups, 240/480/960 channels; `width` keeps them divisible by 12."""
    return ShuffleNetV1(classes=classes, channels=channels, width=width)
