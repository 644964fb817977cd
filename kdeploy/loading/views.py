"""The augmented views of a data set: which crop and which mirror image of a sample belongs to which epoch.

What is drawn for a sample depends on (seed, view, sample) alone, not on the batch it comes in, so that a view seen
in training can be made again elsewhere: for a teacher that looked at it beforehand, or after an interruption.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kdeploy.loading.augment import centres, crop, crop_offsets, cutout, flips, mirror
from kdeploy.loading.randaugment import draw_operations, randaugment
from kdeploy.loading.seeds import seeded
from kdeploy.loading.tensors import Samples
from kdeploy.recipe.schema import AugmentSpec


class Views:
    """Randomly changed forms of the images of `data`, each view of each sample drawn from `seed`.

    count: how many views of a sample there are; epoch e shows view e mod count. None: a new one each epoch.
    mean: the colour, `[C]` in [0, 1], that cutout paints with; black without it.
    """

    def __init__(
        self,
        data: Samples,
        augment: AugmentSpec,
        *,
        seed: int,
        count: int | None = None,
        mean: tuple[float, ...] | None = None,
    ) -> None:
        self.data = data
        self.augment = augment
        self.seed = seed
        self.count = count
        self.mean = mean
        self._drawn: _Drawn | None = None

    def __len__(self) -> int:
        """Samples of the data set."""
        return len(self.data)

    def of_epoch(self, epoch: int) -> int:
        """The view that epoch `epoch` shows."""
        return epoch if self.count is None else epoch % self.count

    def images(self, view: int, index: Tensor) -> Tensor:
        """View `view` of the samples `index` `[B]`: float32 `[B, C, H, W]` in [0, 1]."""
        index = index.cpu()
        (images,) = self.data.batches([index])
        return self.augmented(images, view, index)

    def augmented(self, images: Tensor, view: int, index: Tensor) -> Tensor:
        """The same, of `images` uint8 `[B, C, H, W]` read already; `index` `[B]` on the CPU, so that nothing waits."""
        drawn = self._draw(view, images.shape, images.device)
        placed = index.to(images.device)
        if drawn.offsets is not None:
            images = crop(images, drawn.offsets[placed], self.augment.crop)
        if drawn.mirrored is not None:
            images = mirror(images, drawn.mirrored[placed])
        if drawn.operations is not None and self.augment.randaugment is not None:
            images = randaugment(images, drawn.operations[index], self.augment.randaugment.magnitude)
        if drawn.holes is not None:
            images = cutout(images, drawn.holes[placed], self.augment.cutout, self._fill(images))
        return images.float().div_(255)

    def _fill(self, images: Tensor) -> Tensor:
        mean = self.mean or (0.0,) * images.shape[1]
        return torch.tensor([round(255 * value) for value in mean], dtype=torch.uint8, device=images.device)

    def _draw(self, view: int, shape: torch.Size, device: torch.device) -> _Drawn:
        """The draws of a whole view, made on the CPU so that they are the same on every device.

        Each kind of change has a generator of its own but crop and flip, which share the first one.
        """
        if self._drawn is None or self._drawn.view != view:
            count, asked = len(self), self.augment
            generator = seeded(self.seed, "view", view)
            offsets = crop_offsets(count, asked.crop, generator)
            mirrored = flips(count, generator)
            operations = holes = None
            if asked.randaugment is not None:
                generator = seeded(self.seed, "randaugment", view)
                operations = draw_operations(count, asked.randaugment, generator)
            if asked.cutout:
                generator = seeded(self.seed, "cutout", view)
                holes = centres(count, shape[2], shape[3], generator).to(device)
            self._drawn = _Drawn(
                view,
                offsets.to(device) if asked.crop else None,
                mirrored.to(device) if asked.flip else None,
                operations,
                holes,
            )
        return self._drawn


@dataclass(frozen=True)
class _Drawn:
    """What was drawn for all samples of a view, on the device but for the operations; None for what is off."""

    view: int
    offsets: Tensor | None
    mirrored: Tensor | None
    operations: Tensor | None
    holes: Tensor | None
