"""What the profiles of all runtimes have in common: calls in a row with the clock read around each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

WARM_UP = 20
"""Calls before those that count."""


BLOCK = 10
"""Calls in a row of two that take turns."""

Run = Callable[[NDArray[Any]], object]


def timed(run: Run, inputs: Sequence[NDArray[Any]], count: int, *, first: int = 0) -> tuple[float, ...]:
    """Call `run` so often on the inputs in turn, beginning with number `first`; each call's time in microseconds."""
    clock = time.perf_counter_ns
    taken = []
    for place in range(first, first + count):
        images = inputs[place % len(inputs)]
        start = clock()
        run(images)
        taken.append((clock() - start) / 1e3)
    return tuple(taken)


def timed_after_warm_up(run: Run, inputs: Sequence[NDArray[Any]], count: int) -> tuple[float, ...]:
    """`timed`, after `WARM_UP` calls that are not given back."""
    return timed(run, inputs, WARM_UP + count)[WARM_UP:]


def alternately(
    one: Run, other: Run, inputs: Sequence[NDArray[Any]], count: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """`timed_after_warm_up` of two, which take turns in blocks: the machine's own speed drifts, for both alike."""
    taken: tuple[list[float], list[float]] = ([], [])
    for run in (one, other):
        timed(run, inputs, WARM_UP)
    for first in range(0, count, BLOCK):
        for run, times in zip((one, other), taken, strict=True):
            times += timed(run, inputs, min(BLOCK, count - first), first=first)
    return tuple(taken[0]), tuple(taken[1])
