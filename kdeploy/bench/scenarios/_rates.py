"""The highest rate that holds, found by bisection."""

from __future__ import annotations

from collections.abc import Callable

_PRECISION = 0.02


def highest_rate(holds: Callable[[float], bool], capacity: float) -> float | None:
    """The highest rate for which `holds` is true, to 2 %; None where it is false down to 2 % of the capacity.

    capacity: what the engine answers in a second, one query after another; a line fed faster grows without end. Chance
    may turn down a rate that would hold another time: what is found errs to the low side.
    """
    low, high = 0.0, capacity
    while high - low > _PRECISION * high and high > _PRECISION * capacity:
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low or None
