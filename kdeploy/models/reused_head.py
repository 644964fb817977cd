"""A network whose head is another's: what SimKD deploys."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from kdeploy.models.layers import BatchNorm
from kdeploy.models.taps import Taps


class Projector(nn.Module):
    """Maps `[B, inputs, H, W]` to `[B, outputs, h, w]`: pooling to `size` if given, then three convolutions.

    conv1x1 to outputs / reduction, conv3x3, conv1x1 to outputs, without bias, each with batch norm and ReLU (Chen et
    al., CVPR 2022, section 3).
    """

    def __init__(self, inputs: int, outputs: int, reduction: int, size: tuple[int, int] | None) -> None:
        narrow = max(1, outputs // reduction)
        super().__init__()
        self.layers = nn.Sequential(
            nn.Identity() if size is None else nn.AdaptiveAvgPool2d(size),
            *_layer(inputs, narrow, 1),
            *_layer(narrow, narrow, 3),
            *_layer(narrow, outputs, 1),
        )
        self.built_with = {"inputs": inputs, "outputs": outputs, "reduction": reduction, "size": size}

    def forward(self, features: Tensor) -> Tensor:
        projected: Tensor = self.layers(features)
        return projected


class ReusedHead(nn.Module):
    """`network` up to the output of its module `tap`, a projector, average pooling, and somebody's classifier.

    The parts are held, not copied. The classifier is frozen. What `network` computes behind the tap is not used, and
    is left out of the graph when the whole is exported.
    """

    def __init__(self, network: nn.Module, tap: str, projector: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.projector = projector
        self.classifier = classifier.requires_grad_(False)
        self.tap = tap

    def forward(self, x: Tensor) -> Tensor:
        """`[B, channels, H, W]` to logits `[B, classes]`."""
        with Taps(self.network, [self.tap]) as taps:
            self.network(x)
            features = taps.features[0]
        logits: Tensor = self.classifier(self.projector(features).mean((2, 3)))
        return logits

    def describe(self) -> dict[str, Any]:
        """What `rebuild` needs beside the network itself, JSON-able: for the card of a saved network."""
        assert isinstance(self.projector, Projector)
        return {"tap": self.tap, "projector": self.projector.built_with}


def rebuild(network: nn.Module, head: dict[str, Any], classes: int) -> ReusedHead:
    """The network that `ReusedHead.describe` described, with weights to be loaded."""
    projector = Projector(**head["projector"])
    return ReusedHead(network, head["tap"], projector, nn.Linear(head["projector"]["outputs"], classes))


def _layer(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return [convolution, BatchNorm(outputs), nn.ReLU()]
