"""Images of a batch mixed with one another: mixup and CutMix."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kdeploy.loading.seeds import seed_of
from kdeploy.recipe.schema import AugmentSpec


@dataclass(frozen=True)
class Mixed:
    """How the images of a batch were mixed.

    partner: int64 `[B]`, the place in the batch of the image that was mixed into each; share: how much of each image
    is its own, in [0, 1], the same for the whole batch. The labels count in the same shares.
    """

    partner: Tensor
    share: float


class Mixing:
    """Mixes batches as the recipe asks; with both kinds on, a coin decides for each batch.

    mixup (Zhang et al., ICLR 2018): share * x + (1 - share) * x[partner], share from Beta(alpha, alpha).
    CutMix (Yun et al., ICCV 2019): a box of x[partner] in x, its sides sqrt(1 - share) of the image's and its centre
    anywhere; share is then what the box, cut off at the borders, leaves of x.

    What is drawn depends on (seed, epoch, batch) alone. Partners are a random permutation of the batch.
    """

    def __init__(self, augment: AugmentSpec, *, seed: int) -> None:
        self._mixup = augment.mixup
        self._cutmix = augment.cutmix
        self._seed = seed

    def __call__(self, images: Tensor, epoch: int, batch: int) -> tuple[Tensor, Mixed | None]:
        """Images `[B, C, H, W]` mixed, in a new tensor; as they are where nothing is asked for."""
        if not (self._mixup or self._cutmix):
            return images, None
        draw = np.random.default_rng(seed_of(self._seed, "mixing", epoch, batch))
        partner = torch.from_numpy(draw.permutation(len(images))).to(images.device)
        cut = draw.random() < 0.5 if self._mixup and self._cutmix else bool(self._cutmix)
        alpha = self._cutmix if cut else self._mixup
        share = float(draw.beta(alpha, alpha))
        if not cut:
            return torch.lerp(images[partner], images, share), Mixed(partner, share)
        height, width = images.shape[2:]
        top, bottom, left, right = _box(height, width, share, draw)
        pasted = images.clone()
        pasted[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
        return pasted, Mixed(partner, 1 - (bottom - top) * (right - left) / (height * width))


def _box(height: int, width: int, share: float, draw: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of the box, cut off at the borders."""
    side = math.sqrt(1 - share)
    rows, columns = int(height * side), int(width * side)
    top, left = int(draw.integers(height)) - rows // 2, int(draw.integers(width)) - columns // 2
    return max(top, 0), min(top + rows, height), max(left, 0), min(left + columns, width)
