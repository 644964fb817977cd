"""Images that a run has made for itself, in place of the training images that it never opens.

images/images.npz    images: uint8 [N, H, W, C]; classes: int64 [N], what the teacher calls each
images/images.json   what they are, in words, and how many the teacher calls by each class
images/images.png    some of them side by side, to look at
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdeploy import artifacts
from kdeploy.errors import UserError
from kdeploy.sources.base import ImageSet, Splits

FOLDER = "images"
ARRAYS = "images.npz"
CARD = "images.json"
PICTURE = "images.png"
FILES = tuple(f"{FOLDER}/{name}" for name in (ARRAYS, CARD, PICTURE))
_COLUMNS, _ROWS = 16, 8
_GAP = 1
_WHITE = 255


@dataclass(frozen=True)
class Synthesised:
    """images: uint8 `[N, H, W, C]` with what the teacher calls each; what: in words, such as "noise images"."""

    images: ImageSet
    what: str

    def as_splits(self, test: ImageSet) -> Splits:
        """The first half to compare networks on, where validation images are otherwise; the rest to calibrate on."""
        half = len(self.images) // 2
        return Splits(self.images.between(half, len(self.images)), self.images.between(0, half), test)


def write(run: Path, made: Synthesised, **more: Any) -> None:
    """Write the three files to `images/` of a run folder; `more` goes into the card."""
    folder, images = run / FOLDER, made.images
    pixels = np.asarray(images.images[:])
    with artifacts.atomic_path(folder / ARRAYS) as temporary:
        np.savez(temporary, images=pixels, classes=images.labels)
    with artifacts.atomic_path(folder / PICTURE) as temporary:
        sheet = grid(pixels)
        Image.fromarray(sheet.squeeze(axis=2) if sheet.shape[2] == 1 else sheet).save(temporary, format="PNG")
    called = np.bincount(images.labels, minlength=len(images.classes)).tolist()
    artifacts.write_json(
        folder / CARD,
        {
            "schema_version": 1,
            "what": made.what,
            "count": len(images),
            "classes": list(images.classes),
            "teacher_calls": dict(zip(images.classes, called, strict=True)),
            **more,
        },
    )


def read(run: Path) -> Synthesised:
    """What `write` wrote; a UserError where it is missing or broken."""
    path = run / FOLDER / ARRAYS
    card = artifacts.read_json(run / FOLDER / CARD)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images = ImageSet(arrays["images"], arrays["classes"], tuple(card["classes"]))
        return Synthesised(images, str(card["what"]))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is missing or broken ({error}): run the recipe again.") from None


def grid(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The first 128 of images `[N, H, W, C]` in rows of 16, a white line between them: uint8 `[height, width, C]`."""
    shown = images[: _COLUMNS * _ROWS]
    count, height, width, channels = shown.shape
    columns = min(_COLUMNS, count)
    rows = -(-count // columns)
    sheet = np.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, channels), _WHITE, dtype=np.uint8)
    for number, image in enumerate(shown):
        row, column = divmod(number, columns)
        top, left = row * (height + _GAP), column * (width + _GAP)
        sheet[top : top + height, left : left + width] = image
    return sheet
