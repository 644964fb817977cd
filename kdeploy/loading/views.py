"""The augmented views of a data set: which crop and which mirror image of a sample belongs to which epoch.

What is drawn for a sample depends on (seed, view, sample) alone, not on the batch it comes in, so that a view seen
in training can be made again elsewhere: for a teacher that looked at it beforehand, or after an interruption.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from kdeploy.loading.augment import crop, crop_offsets, flips, mirror
from kdeploy.loading.tensors import TensorSet
from kdeploy.recipe.schema import AugmentSpec


class Views:
    """Random crops and mirror images of `data`, each view of each sample drawn from `seed`.

    count: how many views of a sample there are; epoch e shows view e mod count. None: a new one each epoch.
    """

    def __init__(self, data: TensorSet, augment: AugmentSpec, *, seed: int, count: int | None = None) -> None:
        self.data = data
        self.seed = seed
        self.count = count
        self._augment = augment
        self._drawn: tuple[int, Tensor, Tensor] | None = None

    def __len__(self) -> int:
        """Samples of the data set."""
        return len(self.data)

    def of_epoch(self, epoch: int) -> int:
        """The view that epoch `epoch` shows."""
        return epoch if self.count is None else epoch % self.count

    def images(self, view: int, index: Tensor) -> Tensor:
        """View `view` of the samples `index` `[B]`: float32 `[B, C, H, W]` in [0, 1]."""
        offsets, mirrored = self._draw(view)
        images = self.data.images[index]
        if self._augment.crop:
            images = crop(images, offsets[index], self._augment.crop)
        if self._augment.flip:
            images = mirror(images, mirrored[index])
        return images.float().div_(255)

    def _draw(self, view: int) -> tuple[Tensor, Tensor]:
        """The draws of a whole view, made on the CPU so that they are the same on every device."""
        if self._drawn is None or self._drawn[0] != view:
            generator, device = seeded(self.seed, "view", view), self.data.images.device
            offsets = crop_offsets(len(self.data), self._augment.crop, generator).to(device)
            self._drawn = view, offsets, flips(len(self.data), generator).to(device)
        return self._drawn[1:]


def seeded(*key: int | str) -> torch.Generator:
    """A generator on the CPU whose seed is a hash of `key`."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
