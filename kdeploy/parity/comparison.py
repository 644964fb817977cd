"""Compare two networks by what they answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kdeploy.errors import UserError
from kdeploy.parity.record import Parity

Run = Callable[[NDArray[Any]], NDArray[Any]]
Output = Literal["logits", "probabilities"]
Rows = NDArray[np.float64]

# Rounding p to float32, and the few roundings of a softmax before that, move log p by as much.
_RESOLUTION = 5e-7

_TINY = float(np.finfo(np.float64).tiny)

# The logarithm of the smallest normal float32. Below it a softmax in float32 has no digits left to compare.
_LOG_FLOOR = float(np.log(np.finfo(np.float32).tiny))


def compare(
    reference: Run,
    candidate: Run,
    inputs: NDArray[Any],
    *,
    batches: Sequence[int],
    reference_output: Output = "logits",
    candidate_output: Output = "logits",
    tolerance: float | None = 1e-4,
    min_cosine_similarity: float = 0.9999,
) -> Parity:
    """Run both on all `inputs` `[N, ...]` and measure how far apart their outputs `[N, classes]` are.

    The reference runs at the largest batch size; the candidate at each of `batches`, and its worst figures count,
    since a graph that is right at batch 1 may have that batch frozen into it.

    An absolute tolerance alone passes anything on tiny outputs, so differences are relative to the largest
    magnitude of the reference. Where one side gives probabilities both are compared as centred log-probabilities:
    log p is the logits less one constant a row, which subtracting each row's mean removes on both sides, and
    differences of probabilities near 0 and 1 would hide almost anything. Values below float32's smallest normal
    number count as that number on both sides.

    Within the `tolerance` another class can only be on top where two were tied, so top-1 agreement needs no bound
    of its own there. Without one (None, as for int8) only outputs that cannot be compared at all (a wrong shape,
    NaN, infinity) fail; accuracy has its own gate.

    Raises UserError where there are fewer inputs than the largest batch, ValueError where the reference itself
    gives NaN, infinity, or no `[N, classes]`.
    """
    if not batches or min(batches) < 1:
        raise ValueError(f"batches must be one or more sizes above 0, not {list(batches)}")
    largest = max(batches)
    if len(inputs) < largest:
        raise UserError(f"Parity at batch {largest} needs at least {largest} inputs, and there are {len(inputs)}.")
    centred = "probabilities" in (reference_output, candidate_output)
    expected = _in_batches(reference, inputs, largest)
    if expected.ndim != 2 or not np.isfinite(expected).all():
        raise ValueError(f"the reference must give finite [N, classes], and gave {list(expected.shape)}")
    expected = _comparable(expected, reference_output, centred)

    sizes = tuple(sorted(set(batches)))
    rows = {batch: _in_batches(candidate, inputs, batch) for batch in sizes}
    unusable = [f"at batch {batch} {why}" for batch in sizes if (why := _unusable(rows[batch], expected.shape))]
    if unusable:
        figures, reasons = None, unusable
    else:
        found = np.stack([_comparable(rows[batch], candidate_output, centred) for batch in sizes])
        figures = _measure(expected, found)
        reasons = [] if tolerance is None else _misses(figures, tolerance, min_cosine_similarity)
        if reasons and tolerance is not None and centred and figures.scale * tolerance < _RESOLUTION:
            reasons = [
                f"the reference's outputs span only {figures.scale:.1e}, too little for float32 probabilities to show "
                "a difference in (are its weights untrained?); compare the logits"
            ]
    return Parity(
        samples=len(inputs),
        batches=sizes,
        compared="centred log-probabilities" if centred else "logits",
        max_abs_difference=figures.max_abs_difference if figures else None,
        relative_difference=figures.relative_difference if figures else None,
        cosine_similarity=figures.cosine_similarity if figures else None,
        top1_agreement=figures.top1_agreement if figures else None,
        tolerance=tolerance,
        min_cosine_similarity=min_cosine_similarity if tolerance is not None else None,
        passed=not reasons,
        reasons=tuple(reasons),
    )


@dataclass(frozen=True)
class _Figures:
    scale: float
    max_abs_difference: float
    relative_difference: float
    cosine_similarity: float
    top1_agreement: float


def _measure(expected: Rows, found: Rows) -> _Figures:
    """The worst figures of `found` `[batch sizes, N, classes]` against `expected` `[N, classes]`."""
    difference = float(np.abs(found - expected).max())
    scale = float(np.abs(expected).max())
    norms = np.linalg.norm(expected, axis=-1) * np.linalg.norm(found, axis=-1)
    # Two rows of zeros point the same way; a row of zeros and another row do not.
    equal = np.all(found == expected, axis=-1)
    cosines = np.where(equal, 1.0, (found * expected).sum(axis=-1) / np.maximum(norms, _TINY))
    same_class = found.argmax(axis=-1) == expected.argmax(axis=-1)
    return _Figures(
        scale=scale,
        max_abs_difference=difference,
        relative_difference=0.0 if difference == 0 else difference / max(scale, _TINY),
        cosine_similarity=float(np.clip(cosines.min(), -1, 1)),
        top1_agreement=float(same_class.mean(axis=-1).min()),
    )


def _misses(figures: _Figures, tolerance: float, min_cosine_similarity: float) -> list[str]:
    reasons = []
    if figures.relative_difference > tolerance:
        reasons.append(
            f"the largest difference is {figures.relative_difference:.1e} of the outputs' scale, "
            f"more than {tolerance:.0e} (top-1 agrees on {figures.top1_agreement:.1%})"
        )
    if figures.cosine_similarity < min_cosine_similarity:
        reasons.append(f"the worst cosine similarity is {figures.cosine_similarity:.6f}, below {min_cosine_similarity}")
    return reasons


def _in_batches(run: Run, inputs: NDArray[Any], batch: int) -> NDArray[Any]:
    parts = [np.asarray(run(inputs[start : start + batch])) for start in range(0, len(inputs), batch)]
    if len({part.shape[1:] for part in parts}) != 1:
        # Batches that differ in more than their length cannot be joined; the first says what the network gives.
        return parts[0]
    return np.concatenate(parts)


def _unusable(outputs: NDArray[Any], shape: tuple[int, ...]) -> str | None:
    if outputs.shape != shape:
        return f"it gives {list(outputs.shape)} instead of {list(shape)}"
    if not np.isfinite(outputs).all():
        return f"{int((~np.isfinite(outputs)).any(axis=1).sum())} of {len(outputs)} outputs hold NaN or infinity"
    return None


def _comparable(outputs: NDArray[Any], output: Output, centred: bool) -> Rows:
    rows = outputs.astype(np.float64)
    if not centred:
        return rows
    if output == "probabilities":
        logarithms = np.log(np.maximum(rows, np.finfo(np.float32).tiny))
    else:
        shifted = rows - rows.max(axis=1, keepdims=True)
        logarithms = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    floored = np.maximum(logarithms, _LOG_FLOOR)
    return np.asarray(floored - floored.mean(axis=1, keepdims=True))
