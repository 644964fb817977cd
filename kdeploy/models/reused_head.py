"""A network whose head is another's: what SimKD deploys."""

from __future__ import annotations

from torch import Tensor, nn

from kdeploy.models.taps import Taps


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
