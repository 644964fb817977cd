"""Crops, mirror images and holes in whole uint8 batches, and the draws that say which."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def crop(images: Tensor, offsets: Tensor, padding: int) -> Tensor:
    """The H x W windows of images `[B, C, H, W]`, padded by `padding` zeros on all sides, that begin at `offsets`.

    offsets: int64 `[B, 2]`, row and column, 0 to 2 * padding; `padding` for both is the image as it was. As is
    usual for CIFAR (He et al., 2015, section 4.2).
    """
    count, _, height, width = images.shape
    windows = F.pad(images, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(count, device=images.device), :, offsets[:, 0], offsets[:, 1]]


def mirror(images: Tensor, mirrored: Tensor) -> Tensor:
    """Images `[B, C, H, W]`, left and right exchanged where bool `mirrored` `[B]` says so."""
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def cutout(images: Tensor, centres: Tensor, side: int, fill: Tensor) -> Tensor:
    """Images `[B, C, H, W]` with a square of `side` pixels painted over (DeVries and Taylor, 2017).

    centres: int64 `[B, 2]`, row and column, anywhere in the image: what lies outside is cut off. fill: the colour,
    uint8 `[C]`; the paper's is the mean of the training set.
    """
    height, width = images.shape[2:]
    first = centres - side // 2
    rows = torch.arange(height, device=images.device) - first[:, :1]
    columns = torch.arange(width, device=images.device) - first[:, 1:]
    inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None, :]
    return torch.where(inside[:, None], fill[:, None, None], images)


def crop_offsets(count: int, padding: int, generator: torch.Generator) -> Tensor:
    """Where each window begins in the padded image: int64 `[count, 2]`, row and column, 0 to 2 * padding."""
    return torch.randint(0, 2 * padding + 1, (count, 2), generator=generator)


def flips(count: int, generator: torch.Generator) -> Tensor:
    """Which images are mirrored, each with probability 1/2: bool `[count]`."""
    return torch.rand(count, generator=generator) < 0.5


def centres(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """A pixel for each image: int64 `[count, 2]`, row and column."""
    rows = torch.randint(0, height, (count,), generator=generator)
    return torch.stack([rows, torch.randint(0, width, (count,), generator=generator)], dim=1)
