"""A network with its own normalisation and class order: images in, logits of the data's classes out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Classifier(nn.Module):
    """Normalises, runs a network, and puts its logits into the data's order of classes.

    Teacher and student may each want their own normalisation; with this around them, both take the same images.

    Attributes:
        network: the bare network, `[B, C, H, W]` to `[B, outputs]`.
        mean, std: `[1, C, 1, 1]`, for images in [0, 1].
        class_map: `[classes]` int64, the network's output for each class of the data; None where the orders agree.

    The three tensors move with the module but are not part of its state dict: a network's file holds its weights only.
    """

    mean: Tensor
    std: Tensor
    class_map: Tensor | None

    def __init__(
        self, network: nn.Module, mean: Sequence[float], std: Sequence[float], class_map: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise ValueError(f"mean has {len(mean)} channels and std has {len(std)}")
        self.network = network
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        order = None if class_map is None else torch.tensor(class_map, dtype=torch.int64)
        self.register_buffer("class_map", order, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images `[B, C, H, W]` in [0, 1] to logits `[B, classes]`."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits if self.class_map is None else logits.index_select(1, self.class_map)
