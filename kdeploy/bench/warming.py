"""Before the clock counts: the warm-up, and Python's garbage collector out of the way."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_WINDOW = 20
_SETTLED = 0.05
_LEAST_S = 1.0
_MOST_S = 10.0


class Warm(NamedTuple):
    """What a warm-up found."""

    calls: int
    typical_ns: float
    """The median of its last 20 calls."""
    settled: bool


def warm_up(
    run: Callable[[NDArray[Any]], object],
    inputs: Sequence[NDArray[Any]],
    longest_s: float,
    now: Callable[[], int] | None = None,
) -> Warm:
    """Call until the latency has settled.

    Settled: at least 40 calls and one second (of a `longest_s` under two, half of that), and the medians of the last
    two windows of 20 within 5 % of each other. It gives up waiting after 10 s or `longest_s`, and says so. now:
    nanoseconds of a clock, that of `time.perf_counter_ns` unless another is given.
    """
    clock = now or time.perf_counter_ns
    least_ns, most_ns = min(_LEAST_S, longest_s / 2) * 1e9, min(_MOST_S, longest_s) * 1e9
    taken: list[int] = []
    begin = clock()
    while True:
        images = inputs[len(taken) % len(inputs)]
        start = clock()
        run(images)
        end = clock()
        taken.append(end - start)
        settled = end - begin >= least_ns and len(taken) % _WINDOW == 0 and _settled(taken)
        if settled or end - begin >= most_ns:
            return Warm(len(taken), max(1.0, float(np.median(taken[-_WINDOW:]))), settled or _settled(taken))


def _settled(taken: Sequence[int]) -> bool:
    if len(taken) < 2 * _WINDOW:
        return False
    before, last = np.median(taken[-2 * _WINDOW : -_WINDOW]), np.median(taken[-_WINDOW:])
    return bool(abs(last - before) <= _SETTLED * before)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect now, and not again before the block is over: its pauses are no latency of an engine."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
