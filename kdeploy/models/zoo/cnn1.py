"""CNN-1 and CNN-1-A of information-flow modelling: three convolutions without padding and one hidden layer."""

from __future__ import annotations

from torch import Tensor, nn

from kdeploy.errors import UserError
from kdeploy.models.catalogue import network
from kdeploy.models.layers import initialise, scaled

PAPER = "Passalis et al., Heterogeneous Knowledge Distillation, 2020, https://arxiv.org/abs/2005.00727"
_SIDE = 2  # height and width behind the third pooling, for 32×32 images


class CNN1(nn.Module):
    """Stages `layer1` to `layer3` of a 3×3 convolution, norm, ReLU and 2×2 max-pooling, `hidden`, and `fc`.

    The paper's layers 0 to 2 are these stages, pooled; its layer 3 is what enters `fc`, the hidden layer's ReLU.
    """

    def __init__(self, *, classes: int, channels: int, width: float) -> None:
        super().__init__()
        first, second, third = (scaled(planes, width) for planes in (8, 16, 32))
        self.layer1 = _stage(channels, first)
        self.layer2 = _stage(first, second)
        self.layer3 = _stage(second, third)
        self.hidden = nn.Sequential(nn.Linear(third * _SIDE**2, scaled(64, width)), nn.ReLU())
        self.fc = nn.Linear(scaled(64, width), classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, channels, 32, 32]` to logits `[B, classes]`. Raises UserError for images of another size."""
        height, width = x.shape[2:]
        if (height, width) != (32, 32):
            raise UserError(f"CNN-1 takes images of 32x32, not {height}x{width}: set data.size to 32.")
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.hidden(x.flatten(1)))
        return logits


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2))


@network(paper=PAPER, parameters={10: 15_050})
def cnn1(classes: int, channels: int, width: float) -> nn.Module:
    """CNN-1, the paper's student: 8/16/32 channels and 64 hidden units; 32×32 images only."""
    return CNN1(classes=classes, channels=channels, width=width)


@network(paper=PAPER, parameters={10: 57_994})
def cnn1_a(classes: int, channels: int, width: float) -> nn.Module:
    """CNN-1-A, the auxiliary teacher: CNN-1 at twice its width, 16/32/64 channels and 128 hidden units."""
    return CNN1(classes=classes, channels=channels, width=2 * width)
