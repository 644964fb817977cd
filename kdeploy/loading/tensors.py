"""A whole data set as two tensors on one device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kdeploy.sources.base import ImageSet


@dataclass(frozen=True)
class TensorSet:
    """images: uint8 `[N, C, H, W]`, contiguous; labels: int64 `[N]`."""

    images: Tensor
    labels: Tensor

    @classmethod
    def from_images(cls, images: ImageSet, device: torch.device | str) -> TensorSet:
        """Copy the arrays of `images` to `device`, channels first."""
        pixels = torch.from_numpy(np.array(images.images.transpose(0, 3, 1, 2), order="C"))
        return cls(pixels.to(device), torch.from_numpy(images.labels.copy()).to(device))

    def __len__(self) -> int:
        return len(self.labels)
