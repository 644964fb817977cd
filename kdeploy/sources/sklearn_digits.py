"""scikit-learn's handwritten digits: 1,797 gray images of 8x8 pixels that ship inside the library.

Half of the UCI "Optical Recognition of Handwritten Digits" set (Alpaydin and Kaynak, 1998). No test split.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kdeploy.errors import UserError, missing_extra
from kdeploy.recipe.schema import DataSpec
from kdeploy.sources.base import ImageSet, Source
from kdeploy.sources.checks import known_options

USAGE = "sklearn-digits"
_HIGHEST = 16


def load(spec: DataSpec, name: str, base: Path) -> Source:
    """All images, their values 0..16 scaled to 0..255; `[1797, 8, 8, 1]`, classes "0" to "9"."""
    known_options(spec)
    if spec.root is not None:
        raise UserError("The source sklearn-digits ships with scikit-learn and takes no data.root.")
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise missing_extra("scikit-learn", "train", "The source sklearn-digits") from None
    digits = load_digits()
    images = np.rint(digits.images[..., None] * (255 / _HIGHEST)).astype(np.uint8)
    return Source(ImageSet(images, digits.target.astype(np.int64), tuple("0123456789")), None)
