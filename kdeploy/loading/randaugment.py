"""RandAugment (Cubuk et al., 2020) on whole uint8 batches, with torchvision's operations and magnitudes.

The samples of a batch that drew the same operation are changed together, so that a batch takes a few dozen calls and
not two a sample; each sample comes out as `torchvision.transforms.RandAugment` would make it from the same draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
    functional = import_torchvision().transforms.v2.functional
    images = images.clone()
    for step in drawn.unbind(1):
        for code in sorted(set(step.tolist())):
            name, sign = OPERATIONS[code // 2], -1.0 if code % 2 else 1.0
            if name == "Identity":
                continue
            rows = (step == code).nonzero().squeeze(1).to(images.device)
            images[rows] = _operation(functional, name, sign * magnitude / _STEPS, images.shape)(images[rows])
    return images


def _operation(functional: Any, name: str, strength: float, shape: torch.Size) -> Callable[[Tensor], Tensor]:
    """The operation called `name` at `strength`, -1 to 1, for images of this shape."""
    if name.startswith(("Shear", "Translate")):
        return _affine(functional, name, strength, shape)
    if name == "Rotate":
        return lambda images: functional.rotate(images, 30.0 * strength)
    if name == "Posterize":
        return lambda images: functional.posterize(images, bits=8 - round(4 * strength))
    if name == "Solarize":
        return lambda images: functional.solarize(images, threshold=255.0 * (1 - strength))
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
    return lambda images: adjust(images, 1 + 0.9 * strength)


def _affine(functional: Any, name: str, strength: float, shape: torch.Size) -> Callable[[Tensor], Tensor]:
    """A shear about the top left corner, or a shift by up to 150/331 of a side."""
    horizontal = name.endswith("X")
    if name.startswith("Shear"):
        angle = math.degrees(math.atan(0.3 * strength))
        shear, translate, centre = [angle, 0.0] if horizontal else [0.0, angle], [0, 0], [0.0, 0.0]
    else:
        pixels = int(150 / 331 * (shape[3] if horizontal else shape[2]) * strength)
        shear, translate, centre = [0.0, 0.0], [pixels, 0] if horizontal else [0, pixels], None
    return lambda images: functional.affine(
        images, angle=0.0, translate=translate, scale=1.0, shear=shear, center=centre
    )
