"""ShuffleNetV2 for 32×32 images, as in the CIFAR-100 tables: the paper's 1× network behind a 1×1 stem, no pooling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdeploy.models.catalogue import network
from kdeploy.models.layers import conv_norm, initialise, scaled, shuffle

PAPER = "Ma et al., ShuffleNet V2: Practical Guidelines, 2018, https://arxiv.org/abs/1807.11164"


class SplitUnit(nn.Module):
    """Half of the channels pass, the other half are worked on; then both are shuffled (figure 3c)."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        half = planes // 2
        self.branch = nn.Sequential(
            conv_norm(half, half), conv_norm(half, half, 3, groups=half, relu=False), conv_norm(half, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, planes, H, W]` to the same shape."""
        kept, worked = x.chunk(2, 1)
        return shuffle(torch.cat([kept, self.branch(worked)], 1), 2)


class DownUnit(nn.Module):
    """Both branches see all channels and halve the image (figure 3d)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.left = nn.Sequential(conv_norm(inputs, inputs, 3, 2, groups=inputs, relu=False), conv_norm(inputs, half))
        self.right = nn.Sequential(
            conv_norm(inputs, half), conv_norm(half, half, 3, 2, groups=half, relu=False), conv_norm(half, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, H, W]` to `[B, outputs, H / 2, W / 2]`."""
        return shuffle(torch.cat([self.left(x), self.right(x)], 1), 2)


class ShuffleNetV2(nn.Module):
    """A 1×1 stem, stages `layer1` to `layer3` of one halving unit and 3, 7 and 3 others, a 1×1 `head`, and `fc`."""

    def __init__(self, *, classes: int, channels: int, width: float) -> None:
        super().__init__()
        stem, head = scaled(24, width), scaled(1024, width)
        first, second, third = (scaled(planes, width, 2) for planes in (116, 232, 464))
        self.stem = conv_norm(channels, stem)
        self.layer1 = _stage(3, stem, first)
        self.layer2 = _stage(7, first, second)
        self.layer3 = _stage(3, second, third)
        self.head = conv_norm(third, head)
        self.fc = nn.Linear(head, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, channels, H, W]` to logits `[B, classes]`."""
        x = self.layer3(self.layer2(self.layer1(self.stem(x))))
        logits: Tensor = self.fc(self.head(x).mean((2, 3)))
        return logits


def _stage(units: int, inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(DownUnit(inputs, outputs), *(SplitUnit(outputs) for _ in range(units)))


@network(paper=PAPER, parameters={100: 1_355_528})
def shufflenetv2(classes: int, channels: int, width: float) -> nn.Module:
    """116/232/464 channels and a head of 1024; `width` keeps the stages even."""
    return ShuffleNetV2(classes=classes, channels=channels, width=width)
