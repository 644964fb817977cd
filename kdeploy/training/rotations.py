"""Images turned by quarters, for methods that ask for it, and the unturned rows of what networks say of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kdeploy.errors import UserError
from kdeploy.methods.base import Needs, Outputs


def asked(needs: Sequence[Needs]) -> int:
    """How many rows an image is given so that each method has what it asks for: 1 or 4."""
    return max((need.rotations for need in needs), default=1)


def require_square(needs: Sequence[Needs], height: int, width: int) -> None:
    """Raise UserError where images `height` by `width` cannot be turned as these needs ask."""
    if asked(needs) > 1 and height != width:
        raise UserError(
            f"A method of this recipe turns images by 90 degrees, and these are {height} by {width} pixels: make them "
            f"square with data.size, such as --set data.size={max(height, width)}."
        )


def rotated(images: Tensor, rotations: int) -> Tensor:
    """`[B, C, H, H]` to `[4B, C, H, H]`: row 4b + j is image b, turned counter-clockwise by j quarters. 1: as it is."""
    if rotations == 1:
        return images
    turned = torch.stack([torch.rot90(images, quarter, (2, 3)) for quarter in range(rotations)], dim=1).flatten(0, 1)
    last = not images.is_contiguous() and images.is_contiguous(memory_format=torch.channels_last)
    return turned.contiguous(memory_format=torch.channels_last) if last else turned


def rows_for(need: Needs, outputs: Outputs, rotations: int) -> Outputs:
    """What a method is given of outputs for images in so many rotations: all rows, or the unturned ones."""
    if need.rotations == rotations:
        return outputs
    return Outputs(
        logits=outputs.logits[::rotations],
        features=[feature[::rotations] for feature in outputs.features],
        embedding=None if outputs.embedding is None else outputs.embedding[::rotations],
    )
