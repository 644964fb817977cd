"""MobileNetV2 for 32×32 images, as in the CIFAR-100 tables: the paper's network at half its width.

Two of the five strides are dropped, ReLU takes the place of ReLU6, and the first block expands (by 1) like the others.
"""

from __future__ import annotations

from torch import Tensor, nn

from kdeploy.models.catalogue import network
from kdeploy.models.layers import conv_norm, initialise, scaled

PAPER = "Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018, https://arxiv.org/abs/1801.04381"

# Table 2 of the paper at half width, by stage of equal resolution: (expansion, channels, blocks, stride).
_STAGES = (
    ((1, 8, 1, 1), (6, 12, 2, 1)),
    ((6, 16, 3, 2),),
    ((6, 32, 4, 2), (6, 48, 3, 1)),
    ((6, 80, 3, 2), (6, 160, 1, 1)),
)


class InvertedResidual(nn.Module):
    """Widen by 1×1, filter each channel by 3×3, narrow by 1×1 without activation; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = conv_norm(inputs, hidden)
        self.depthwise = conv_norm(hidden, hidden, 3, stride, groups=hidden)
        self.project = conv_norm(hidden, outputs, relu=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, H, W]` to `[B, outputs, H / stride, W / stride]`."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """A 3×3 stem of stride 2, stages `layer1` to `layer4`, a 1×1 convolution `head`, and `fc`."""

    def __init__(self, *, classes: int, channels: int, width: float) -> None:
        super().__init__()
        inputs = scaled(16, width)
        self.stem = conv_norm(channels, inputs, 3, 2)
        self.stages = [f"layer{number}" for number in range(1, len(_STAGES) + 1)]
        for stage, rows in zip(self.stages, _STAGES, strict=True):
            blocks = []
            for expansion, planes, count, stride in rows:
                for index in range(count):
                    outputs = scaled(planes, width)
                    blocks.append(InvertedResidual(inputs, outputs, stride if index == 0 else 1, expansion))
                    inputs = outputs
            self.add_module(stage, nn.Sequential(*blocks))
        self.head = conv_norm(inputs, scaled(1280, width))
        self.fc = nn.Linear(scaled(1280, width), classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, channels, H, W]` to logits `[B, classes]`."""
        x = self.stem(x)
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        logits: Tensor = self.fc(self.head(x).mean((2, 3)))
        return logits


@network(paper=PAPER, parameters={100: 812_836})
def mobilenetv2(classes: int, channels: int, width: float) -> nn.Module:
    """The half-width MobileNetV2 of the CIFAR-100 tables; width 1 is that half, and scales the head too."""
    return MobileNetV2(classes=classes, channels=channels, width=width)
