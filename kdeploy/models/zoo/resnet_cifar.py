"""Residual networks for 32×32 images: the 6n+2 layers of He et al., section 4.2, and those of the CIFAR-100 tables.

Two shortcuts where the shape changes: `A`, a stride-2 slice padded with zero channels (He et al.'s own for CIFAR,
and that of many public checkpoints), and `projection`, a 1×1 convolution with batch norm, which is the default
because the tables of the distillation literature (RepDistiller's and all that follow) rest on it.

`stem_width` multiplies the channels of the first convolution where these differ from `width`: students of several
widths can then share one stem (the procedure online-ensemble).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from kdeploy.errors import UserError, nearest
from kdeploy.models.catalogue import network
from kdeploy.models.layers import initialise, scaled

PAPER = "He et al., Deep Residual Learning for Image Recognition, 2015, https://arxiv.org/abs/1512.03385"
CRD = "Tian et al., Contrastive Representation Distillation, 2019, https://arxiv.org/abs/1910.10699"

Shortcut = Literal["A", "projection"]


class ZeroPadShortcut(nn.Module):
    """Option A: take every stride-th pixel and pad with zero channels on both sides; no parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, H, W]` to `[B, outputs, ceil(H / stride), ceil(W / stride)]`."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


def make_shortcut(kind: Shortcut, inputs: int, outputs: int, stride: int) -> nn.Module:
    """The identity where the shape stays, else the shortcut of that kind."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if kind == "A":
        return ZeroPadShortcut(inputs, outputs, stride)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and the shortcut around them."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = make_shortcut(shortcut, inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, H, W]` to `[B, planes, H / stride, W / stride]`."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1×1, 3×3 (with the stride) and 1×1 convolutions, four times as wide at the end, and the shortcut around them."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        outputs = planes * self.expansion
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = make_shortcut(shortcut, inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, H, W]` to `[B, 4 · planes, H / stride, W / stride]`."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """A 3×3 stem without pooling, stages `layer1`, `layer2`, … (all but the first halve the image), and `fc`.

    Args:
        stem: channels of the first convolution, times `stem_width`, or times `width` where that is None.
        planes: channels of each stage (a bottleneck's output is four times as wide).
        blocks: residual blocks of each stage.
    """

    stem_modules = ("conv1", "bn1")

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        stem: int,
        planes: Sequence[int],
        blocks: Sequence[int],
        *,
        classes: int,
        channels: int,
        width: float,
        shortcut: Shortcut,
        stem_width: float | None,
    ) -> None:
        super().__init__()
        if shortcut not in ("A", "projection"):
            raise UserError(f"There is no shortcut {shortcut!r}.{nearest(str(shortcut), ('A', 'projection'))}")
        if stem_width is not None and stem_width <= 0:
            raise UserError(f"stem_width must be above 0, and it is {stem_width:g}.")
        inputs = scaled(stem, width if stem_width is None else stem_width)
        if shortcut == "A" and inputs > scaled(planes[0], width) * block.expansion:
            raise UserError("The shortcut A adds channels and takes none away: behind a wider stem, take projection.")
        self._block, self._shortcut = block, shortcut
        self._widths: dict[str, tuple[int, int, int]] = {}  # of each stage: channels in, planes, blocks
        self.conv1 = nn.Conv2d(channels, inputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.stages = [f"layer{number}" for number in range(1, len(planes) + 1)]
        for stage, stage_planes, count in zip(self.stages, planes, blocks, strict=True):
            self._widths[stage] = (inputs, scaled(stage_planes, width), count)
            self.add_module(stage, self._make(*self._widths[stage], stride=1 if stage == "layer1" else 2))
            inputs = scaled(stage_planes, width) * block.expansion
        self.fc = nn.Linear(inputs, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, channels, H, W]` to logits `[B, classes]`."""
        return self.body(self.bn1(self.conv1(x)))

    def body(self, features: Tensor) -> Tensor:
        """What `bn1` gives, `[B, stem, H, W]`, to logits `[B, classes]` (`kdeploy.models.stages`)."""
        x = F.relu(features)
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits

    def onward(self, stage: str) -> nn.Sequential:
        """New layers from the output of `stage` to a map as deep as the last stage's (`kdeploy.models.stages`)."""
        later = self.stages[self.stages.index(stage) + 1 :]
        if later:
            layers = nn.Sequential(*(self._make(*self._widths[name], stride=2) for name in later))
        else:
            _, planes, blocks = self._widths[stage]
            layers = nn.Sequential(self._make(planes * self._block.expansion, planes, blocks, stride=1))
        initialise(layers)
        return layers

    def _make(self, inputs: int, planes: int, blocks: int, *, stride: int) -> nn.Sequential:
        """A stage; the stride is its first block's."""
        first = self._block(inputs, planes, stride, self._shortcut)
        width = planes * self._block.expansion
        return nn.Sequential(first, *(self._block(width, planes, 1, self._shortcut) for _ in range(blocks - 1)))


def _six_n_plus_two(
    depth: int,
    classes: int,
    channels: int,
    width: float,
    shortcut: Shortcut,
    stem_width: float | None,
    times: int = 1,
) -> ResNet:
    """Three stages of (depth - 2) / 6 basic blocks; `times` 4 is the wide form, whose stem is only 32 wide."""
    return ResNet(
        BasicBlock,
        16 if times == 1 else 32,
        (16 * times, 32 * times, 64 * times),
        ((depth - 2) // 6,) * 3,
        classes=classes,
        channels=channels,
        width=width,
        shortcut=shortcut,
        stem_width=stem_width,
    )


@network(paper=PAPER, parameters={10: 78_042, 100: 83_892})
def resnet8(
    classes: int, channels: int, width: float, *, shortcut: Shortcut = "projection", stem_width: float | None = None
) -> nn.Module:
    """8 layers, 16/32/64 channels."""
    return _six_n_plus_two(8, classes, channels, width, shortcut, stem_width)


@network(paper=PAPER, parameters={10: 175_258, 100: 181_108})
def resnet14(
    classes: int, channels: int, width: float, *, shortcut: Shortcut = "projection", stem_width: float | None = None
) -> nn.Module:
    """14 layers, 16/32/64 channels."""
    return _six_n_plus_two(14, classes, channels, width, shortcut, stem_width)


@network(paper=PAPER, parameters={10: 272_474, 100: 278_324})
def resnet20(
    classes: int, channels: int, width: float, *, shortcut: Shortcut = "projection", stem_width: float | None = None
) -> nn.Module:
    """20 layers, 16/32/64 channels."""
    return _six_n_plus_two(20, classes, channels, width, shortcut, stem_width)


@network(paper=PAPER, parameters={10: 466_906, 100: 472_756})
def resnet32(
    classes: int, channels: int, width: float, *, shortcut: Shortcut = "projection", stem_width: float | None = None
) -> nn.Module:
    """32 layers, 16/32/64 channels."""
    return _six_n_plus_two(32, classes, channels, width, shortcut, stem_width)


@network(paper=PAPER, parameters={10: 661_338, 100: 667_188})
def resnet44(
    classes: int, channels: int, width: float, *, shortcut: Shortcut = "projection", stem_width: float | None = None
) -> nn.Module:
    """44 layers, 16/32/64 channels."""
    return _six_n_plus_two(44, classes, channels, width, shortcut, stem_width)


@network(paper=PAPER, parameters={10: 855_770, 100: 861_620})
def resnet56(
    classes: int, channels: int, width: float, *, shortcut: Shortcut = "projection", stem_width: float | None = None
) -> nn.Module:
    """56 layers, 16/32/64 channels."""
    return _six_n_plus_two(56, classes, channels, width, shortcut, stem_width)


@network(paper=PAPER, parameters={10: 1_730_714, 100: 1_736_564})
def resnet110(
    classes: int, channels: int, width: float, *, shortcut: Shortcut = "projection", stem_width: float | None = None
) -> nn.Module:
    """110 layers, 16/32/64 channels."""
    return _six_n_plus_two(110, classes, channels, width, shortcut, stem_width)


@network(paper=CRD, parameters={100: 1_233_540})
def resnet8x4(
    classes: int, channels: int, width: float, *, shortcut: Shortcut = "projection", stem_width: float | None = None
) -> nn.Module:
    """8 layers, four times as wide (64/128/256 channels) behind a stem of 32."""
    return _six_n_plus_two(8, classes, channels, width, shortcut, stem_width, times=4)


@network(paper=CRD, parameters={100: 7_433_860})
def resnet32x4(
    classes: int, channels: int, width: float, *, shortcut: Shortcut = "projection", stem_width: float | None = None
) -> nn.Module:
    """32 layers, four times as wide (64/128/256 channels) behind a stem of 32."""
    return _six_n_plus_two(32, classes, channels, width, shortcut, stem_width, times=4)


@network(paper=PAPER, parameters={100: 23_705_252})
def resnet50(
    classes: int, channels: int, width: float, *, shortcut: Shortcut = "projection", stem_width: float | None = None
) -> nn.Module:
    """The bottleneck ResNet-50 of the CIFAR-100 tables: ImageNet's four stages behind a 3×3 stem without pooling."""
    return ResNet(
        Bottleneck,
        64,
        (64, 128, 256, 512),
        (3, 4, 6, 3),
        classes=classes,
        channels=channels,
        width=width,
        shortcut=shortcut,
        stem_width=stem_width,
    )
