"""What every engine checks as it is built: that it takes what its manifest says, and computes what its graph says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdeploy import events
from kdeploy.engines.base import Engine, Manifest, Precision
from kdeploy.errors import GateFailed, UserError

Operators = Mapping[str, Mapping[str, int]]
"""By precision, as `numpy.dtype.name` spells it, the operators of a compiled graph with their counts."""

CHECK_BATCH = 4
_MAX_RELATIVE_DIFFERENCE = 1e-4
_MIN_COSINE = 0.99
_MULTIPLYING = ("Conv", "Deconv", "FullyConnected", "Gemm", "MatMul")
"""Parts of the names of the operators in which a network spends its time."""
_COUNTS_AS: Mapping[Precision, frozenset[str]] = {
    "float32": frozenset({"float32"}),
    "float16": frozenset({"float16"}),
    "bfloat16": frozenset({"bfloat16"}),
    "int8": frozenset({"int8", "uint8"}),
    "mixed": frozenset({"int8", "uint8"}),
}


def require_opset(engine: Engine, manifest: Manifest, model: Path) -> None:
    """Raise UserError for a graph whose operators are newer than the engine takes."""
    highest, opset = engine.highest_opset, manifest.opset
    if highest is not None and opset is not None and opset > highest:
        raise UserError(
            f"{model} has opset {opset}, and the engine {engine.name} takes {highest} at most: export it with opset "
            f"{highest} or lower."
        )


def match(input_name: str, input_dtype: str, manifest: Manifest, path: Path) -> None:
    """Raise UserError where a file does not take what its manifest says."""
    if (input_name, input_dtype) != (manifest.input_name, manifest.input_dtype):
        raise UserError(
            f"{path} takes {input_dtype} {input_name!r}, but its manifest says "
            f"{manifest.input_dtype} {manifest.input_name!r}. Build the engine again."
        )


def seeded_images(manifest: Manifest, batch: int | None) -> NDArray[Any]:
    """Random images as the engine takes them, the same ones each time: `batch` of them, or four where it takes any."""
    random = np.random.default_rng(0)
    count, shape = batch or CHECK_BATCH, manifest.preprocessing
    if manifest.input_dtype == "uint8":
        return random.integers(0, 256, (count, shape.height, shape.width, shape.channels), dtype=np.uint8)
    return random.standard_normal((count, shape.channels, shape.height, shape.width), dtype=np.float32)


def compare(
    engine: str,
    expected: NDArray[np.float32],
    found: NDArray[np.float32],
    manifest: Manifest,
    model: Path,
    reference: str = "ONNX Runtime without graph optimisations",
) -> dict[str, Any]:
    """How far an engine's outputs are from those of its graph, or of what else is its reference.

    Returns what the manifest's details say of it.

    float32 must agree within 1e-4 of the outputs' scale, else GateFailed. Other precisions are rounded in another
    order, and int8 by integer kernels: a cosine similarity below 0.99 is a warning there, for what it costs is
    decided by the accuracy that is measured.
    """
    relative, cosine = _difference(expected, found)
    if manifest.precision == "float32":
        if not relative <= _MAX_RELATIVE_DIFFERENCE:
            raise GateFailed(
                f"{model}: {engine}'s outputs differ from the graph's by {relative:.1e} of their scale, more than "
                f"{_MAX_RELATIVE_DIFFERENCE:.0e}."
            )
    elif not cosine >= _MIN_COSINE:
        meant = f"; its scheme {manifest.scheme} may be meant for another one" if manifest.scheme else ""
        events.warn(
            f"{model}: on this processor {engine}'s {manifest.precision} outputs differ from the graph's (cosine "
            f"similarity {cosine:.4f} on seeded inputs){meant}."
        )
    return {
        "reference": reference,
        "inputs": f"{len(expected)} seeded random images",
        "max_relative_difference": relative,
        "cosine_similarity": cosine,
    }


def require_precision(engine: str, operators: Operators, manifest: Manifest, model: Path) -> None:
    """Raise GateFailed where the multiplying operators are not in the precision that the engine is labelled with.

    Of float32 all must be; in the others, a graph may keep some of its layers in float32.
    """
    inside, every = in_precision(operators, manifest.precision)
    enough = inside == every if manifest.precision == "float32" else inside > 0
    if every and not enough:
        raise GateFailed(
            f"{model}: of the {every} convolutions and matrix products that {engine} compiled, {inside} are in "
            f"{manifest.precision}; on this machine it would be labelled wrongly."
        )


def in_precision(operators: Operators, precision: Precision) -> tuple[int, int]:
    """How many of the operators that multiply matrices or convolve are in this precision, and how many there are."""
    found = {
        named: sum(count for kind, count in counts.items() if _multiplies(kind)) for named, counts in operators.items()
    }
    inside = sum(count for named, count in found.items() if named in _COUNTS_AS[precision])
    return inside, sum(found.values())


def _multiplies(kind: str) -> bool:
    return kind != "Convert" and any(part in kind for part in _MULTIPLYING)


def _difference(expected: NDArray[np.float32], found: NDArray[np.float32]) -> tuple[float, float]:
    """The largest difference over the largest expected magnitude, and the cosine similarity."""
    a, b = expected.astype(np.float64).ravel(), found.astype(np.float64).ravel()
    tiny = np.finfo(np.float64).tiny
    relative = np.abs(a - b).max() / max(np.abs(a).max(), tiny)
    cosine = (a @ b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), tiny)
    return float(relative), float(cosine)
