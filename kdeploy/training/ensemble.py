"""Several teachers as one network, to compare a student with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kdeploy.models.classifier import Classifier


class Mean(nn.Module):
    """The logarithm of the weighted mean of probabilities of several networks."""

    def __init__(self, networks: Mapping[str, Classifier], shares: Mapping[str, float]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks.values())
        self._shares = [shares[role] for role in networks]

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, classes]`."""
        weighted = [
            share * network(images).float().softmax(dim=1)
            for network, share in zip(self.networks, self._shares, strict=True)
        ]
        return torch.stack(weighted).sum(dim=0).log()


def together(networks: Mapping[str, Classifier], shares: Mapping[str, float]) -> nn.Module:
    """What these networks say together; one is itself."""
    return next(iter(networks.values())) if len(networks) == 1 else Mean(networks, shares)
