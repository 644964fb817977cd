"""What every engine checks as it is built: that it takes what its manifest says, and computes what its graph says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdeploy.engines.base import Manifest
from kdeploy.errors import GateFailed, UserError

CHECK_BATCH = 4
_MAX_RELATIVE_DIFFERENCE = 1e-4


def match(input_name: str, input_dtype: str, manifest: Manifest, path: Path) -> None:
    """Raise UserError where a file does not take what its manifest says."""
    if (input_name, input_dtype) != (manifest.input_name, manifest.input_dtype):
        raise UserError(
            f"{path} takes {input_dtype} {input_name!r}, but its manifest says "
            f"{manifest.input_dtype} {manifest.input_name!r}. Build the engine again."
        )


def seeded_images(manifest: Manifest) -> NDArray[Any]:
    """Four random images as the engine takes them, the same ones each time."""
    random = np.random.default_rng(0)
    shape = manifest.preprocessing
    if manifest.input_dtype == "uint8":
        return random.integers(0, 256, (CHECK_BATCH, shape.height, shape.width, shape.channels), dtype=np.uint8)
    return random.standard_normal((CHECK_BATCH, shape.channels, shape.height, shape.width), dtype=np.float32)


def difference(expected: NDArray[np.float32], found: NDArray[np.float32]) -> tuple[float, float]:
    """The largest difference over the largest expected magnitude, and the cosine similarity."""
    a, b = expected.astype(np.float64).ravel(), found.astype(np.float64).ravel()
    tiny = np.finfo(np.float64).tiny
    relative = np.abs(a - b).max() / max(np.abs(a).max(), tiny)
    cosine = (a @ b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), tiny)
    return float(relative), float(cosine)


def require_close(relative: float, model: Path, what: str) -> None:
    """Raise GateFailed for float32 outputs that differ by more than 1e-4 of the scale of the reference's."""
    if not relative <= _MAX_RELATIVE_DIFFERENCE:
        raise GateFailed(
            f"{model}: {what} by {relative:.1e} of the outputs' scale, more than {_MAX_RELATIVE_DIFFERENCE:.0e}."
        )
