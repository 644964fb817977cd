"""Random crops and flips of whole uint8 batches.

Draws come from a generator on the CPU, so that a batch is the same on every device.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def crop_and_flip(images: Tensor, *, crop: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Shift each image by up to `crop` pixels, zeros coming in, and mirror it with probability 1/2.

    images: uint8 `[B, C, H, W]`; the result has the same shape. The same as padding by `crop` on all sides
    and cutting an H x W window out at a random place, as is usual for CIFAR (He et al., 2015, section 4.2).
    """
    count, _, height, width = images.shape
    if crop:
        at = crop_offsets(count, crop, generator).to(images.device)
        windows = F.pad(images, [crop] * 4).unfold(2, height, 1).unfold(3, width, 1)
        images = windows[torch.arange(count, device=images.device), :, at[:, 0], at[:, 1]]
    if flip:
        mirrored = flips(count, generator).to(images.device)
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    return images


def crop_offsets(count: int, crop: int, generator: torch.Generator) -> Tensor:
    """Where each window begins in the padded image: int64 `[count, 2]`, row and column, 0 to 2 * crop."""
    return torch.randint(0, 2 * crop + 1, (count, 2), generator=generator)


def flips(count: int, generator: torch.Generator) -> Tensor:
    """Which images are mirrored: bool `[count]`."""
    return torch.rand(count, generator=generator) < 0.5
