"""The range whose 256 steps represent given values with the least squared error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SHARES = np.linspace(0.02, 1.0, 50)
"""How much of an end of the range is tried, in steps of a fiftieth."""
_ROUNDS = 2
_STEPS = 255

Floats = NDArray[np.float64]


def least_squares_range(
    counts: Floats, edges: Floats, low: float, high: float, *, symmetric: bool
) -> tuple[float, float]:
    """Both ends of a range in [low, high] that holds 0.

    A narrower range rounds the many values inside it finer and cuts off the few outside; the error of both together
    is what is minimised. The values come as a histogram, counts `[bins]` between edges `[bins + 1]`, each bin taken
    for its middle. Both ends are first drawn in together, then one after the other: the error has one valley along
    each, so this finds it without trying every pair.

    symmetric: the range has zero point 0 and 255 steps, as int8 without -128 has; else 256 values with 0 among them.
    """
    seen = counts > 0
    values, weights = (edges[:-1] + edges[1:])[seen] / 2, counts[seen]
    low, high = min(low, 0.0), max(high, 0.0)
    if not values.size or low == high:
        return low, high
    if symmetric:
        reach = max(-low, high)
        best = _best(values, weights, -reach * _SHARES, reach * _SHARES, symmetric=True)
        return -reach * _SHARES[best], reach * _SHARES[best]
    best = _best(values, weights, low * _SHARES, high * _SHARES)
    at_low, at_high = low * _SHARES[best], high * _SHARES[best]
    for _ in range(_ROUNDS):
        at_high = high * _SHARES[_best(values, weights, np.full_like(_SHARES, at_low), high * _SHARES)]
        at_low = low * _SHARES[_best(values, weights, low * _SHARES, np.full_like(_SHARES, at_high))]
    return float(at_low), float(at_high)


def squared_error(values: Floats, weights: Floats, low: float, high: float, *, symmetric: bool = False) -> float:
    """The weighted sum of squared differences between values and what 8 bits make of them in a range around 0."""
    scale = (high - low) / (_STEPS - 1 if symmetric else _STEPS)
    if scale == 0:
        return float(weights @ values**2)
    zero, first, last = (0, -127, 127) if symmetric else (round(-low / scale), 0, _STEPS)
    rounded = np.clip(np.rint(values / scale) + zero, first, last)
    return float(weights @ (values - scale * (rounded - zero)) ** 2)


def _best(values: Floats, weights: Floats, lows: Floats, highs: Floats, *, symmetric: bool = False) -> int:
    """Which of these ranges has the least error."""
    pairs = zip(lows, highs, strict=True)
    return int(np.argmin([squared_error(values, weights, low, high, symmetric=symmetric) for low, high in pairs]))
