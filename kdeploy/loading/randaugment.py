"""RandAugment (Cubuk et al., 2020) on whole uint8 batches, with torchvision's operations and magnitudes.

The samples of a batch that drew the same operation are changed together, so that a batch takes a few dozen calls and
not two a sample; each sample comes out as `torchvision.transforms.v2.RandAugment` makes it from the same draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdeploy.recipe.schema import RandAugmentSpec
from kdeploy.torchvision_compat import import_torchvision

OPERATIONS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)
"""torchvision's names, in its order."""
_FIRST_SIGNED, _LAST_SIGNED = OPERATIONS.index("ShearX"), OPERATIONS.index("Sharpness")
"""From here to there an operation goes either way, with probability 1/2."""
_STEPS = 30
"""The magnitudes 0 to 30, as in the paper."""


def draw_operations(count: int, spec: RandAugmentSpec, generator: torch.Generator) -> Tensor:
    """Which operations each of `count` samples goes through: int64 `[count, spec.operations]`.

    2 * k stands for the operation k of `OPERATIONS`, 2 * k + 1 for the same the other way.
    """
    shape = (count, spec.operations)
    chosen = torch.randint(0, len(OPERATIONS), shape, generator=generator)
    other_way = torch.rand(shape, generator=generator) < 0.5
    signed = (chosen >= _FIRST_SIGNED) & (chosen <= _LAST_SIGNED)
    return 2 * chosen + (other_way & signed)


def randaugment(images: Tensor, drawn: Tensor, magnitude: int) -> Tensor:
    """Images uint8 `[B, C, H, W]` after the operations `drawn` `[B, n]` (int64, on the CPU), first to last.

    Interpolation is to the nearest pixel, and what comes in from outside is black, as is torchvision's default.
    """
    import_torchvision()
    from torchvision.transforms.v2 import functional

    images = images.clone()
    for step in drawn.unbind(1):
        for code in sorted(set(step.tolist())):
            name = OPERATIONS[code // 2]
            if name == "Identity":
                continue
            rows = (step == code).nonzero().squeeze(1).to(images.device)
            level = _Level(magnitude, -1 if code % 2 else 1)
            images[rows] = _operation(functional, name, level, images.shape)(images[rows])
    return images


@dataclass(frozen=True)
class _Level:
    """How far an operation goes: its magnitude of the steps, and which way."""

    magnitude: int
    sign: int

    def between(self, least: float, most: float) -> float:
        """The value at this magnitude, in float32 as torchvision has it: the last bit can decide a pixel."""
        return self.sign * float(torch.linspace(least, most, _STEPS + 1)[self.magnitude].item())


def _operation(functional: Any, name: str, level: _Level, shape: torch.Size) -> Callable[[Tensor], Tensor]:
    """The operation called `name` at a level, for images of this shape."""
    if name.startswith(("Shear", "Translate")):
        return _affine(functional, name, level, shape)
    if name == "Rotate":
        return lambda images: functional.rotate(images, level.between(0, 30))
    if name == "Posterize":
        return lambda images: functional.posterize(images, bits=8 - round(4 * level.magnitude / _STEPS))
    if name == "Solarize":
        return lambda images: functional.solarize(images, threshold=255 * level.between(1, 0))
    if name == "AutoContrast":
        return functional.autocontrast  # type: ignore[no-any-return]
    if name == "Equalize":
        return functional.equalize  # type: ignore[no-any-return]
    adjust = {
        "Brightness": functional.adjust_brightness,
        "Color": functional.adjust_saturation,
        "Contrast": functional.adjust_contrast,
        "Sharpness": functional.adjust_sharpness,
    }[name]
    return lambda images: adjust(images, 1 + level.between(0, 0.9))


def _affine(functional: Any, name: str, level: _Level, shape: torch.Size) -> Callable[[Tensor], Tensor]:
    """A shear about the top left corner, or a shift by up to 150/331 of a side."""
    horizontal = name.endswith("X")
    if name.startswith("Shear"):
        angle = math.degrees(math.atan(level.between(0, 0.3)))
        shear, translate, centre = [angle, 0.0] if horizontal else [0.0, angle], [0, 0], [0.0, 0.0]
    else:
        pixels = int(level.between(0, 150 / 331 * (shape[3] if horizontal else shape[2])))
        shear, translate, centre = [0.0, 0.0], [pixels, 0] if horizontal else [0, pixels], None
    return lambda images: functional.affine(
        images, angle=0.0, translate=translate, scale=1.0, shear=shear, center=centre
    )
