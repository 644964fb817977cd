"""The measuring loop: warm-up, then single calls one after another with the clock read around each."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdeploy.bench.results import Latency
from kdeploy.bench.statistics import MEDIAN_MIN_COUNT, percentile_estimate

Run = Callable[[NDArray[Any]], object]
Report = Callable[[float], None]
"""Called about once a second, outside the clock, with the share that is done."""

_WINDOW = 20
_SETTLED = 0.05
_WARMUP_MIN_S = 1.0
_WARMUP_MAX_S = 10.0
_REPORT_EVERY_NS = 1_000_000_000


@dataclass(frozen=True)
class Samples:
    """Calls in order. latency_ns: int64 `[count]`; duration_s: from the first call's start to the last one's end."""

    latency_ns: NDArray[np.int64]
    warmup_count: int
    duration_s: float


def measure_calls(
    run: Run, inputs: Sequence[NDArray[Any]], *, min_time_s: float, min_count: int, report: Report
) -> Samples:
    """Warm up, then call `run` on the inputs in turn for at least `min_time_s` and `min_count` calls.

    Never fewer than the 8 calls that a median with its interval takes. Python's garbage collector is off meanwhile.
    """
    min_count = max(min_count, MEDIAN_MIN_COUNT)
    with _no_garbage_collection():
        warmup_count, typical_ns = _warm_up(run, inputs, min_time_s)
        return _loop(run, inputs, min_time_s, min_count, warmup_count, typical_ns, report)


def latency(samples: Samples, batch: int) -> Latency:
    """The statistics of what was measured at this batch size."""
    in_order = samples.latency_ns / 1e6
    ascending = np.sort(in_order)
    p50 = percentile_estimate(ascending, 0.50)
    if p50 is None:
        raise ValueError(f"a median with its interval takes {MEDIAN_MIN_COUNT} samples, not {len(ascending)}")
    return Latency(
        batch=batch,
        count=len(ascending),
        warmup_count=samples.warmup_count,
        duration_s=samples.duration_s,
        p50=p50,
        p90=percentile_estimate(ascending, 0.90),
        p99=percentile_estimate(ascending, 0.99),
        throughput_per_s=batch * len(ascending) / samples.duration_s,
        samples_ms=tuple(in_order.tolist()),
    )


def _warm_up(run: Run, inputs: Sequence[NDArray[Any]], min_time_s: float) -> tuple[int, float]:
    """Call until the latency has settled; returns the number of calls and their last median in nanoseconds.

    Settled: at least 20 calls and one second, and the medians of the last two windows of 20 within 5 % of each other.
    It gives up waiting after 10 s. Neither bound is longer than the measurement itself.
    """
    shortest_ns = min(_WARMUP_MIN_S, min_time_s) * 1e9
    longest_ns = min(_WARMUP_MAX_S, min_time_s) * 1e9
    clock = time.perf_counter_ns
    taken: list[int] = []
    begin = clock()
    while True:
        images = inputs[len(taken) % len(inputs)]
        start = clock()
        run(images)
        end = clock()
        taken.append(end - start)
        elapsed_ns = end - begin
        whole_window = len(taken) % _WINDOW == 0
        if elapsed_ns >= longest_ns or (elapsed_ns >= shortest_ns and whole_window and _settled(taken)):
            return len(taken), float(np.median(taken[-_WINDOW:]))


def _settled(taken: Sequence[int]) -> bool:
    if len(taken) < 2 * _WINDOW:
        return False
    before, last = np.median(taken[-2 * _WINDOW : -_WINDOW]), np.median(taken[-_WINDOW:])
    return bool(abs(last - before) <= _SETTLED * before)


def _loop(
    run: Run,
    inputs: Sequence[NDArray[Any]],
    min_time_s: float,
    min_count: int,
    warmup_count: int,
    typical_ns: float,
    report: Report,
) -> Samples:
    min_time_ns = int(min_time_s * 1e9)
    # Room for twice the calls that the warm-up promises, written to now so that no page faults come later.
    taken = np.full(2 * max(min_count, int(min_time_ns / max(typical_ns, 1.0))), -1, dtype=np.int64)
    clock = time.perf_counter_ns
    kinds = len(inputs)
    count = 0
    begin = clock()
    report_at = begin + _REPORT_EVERY_NS
    while True:
        images = inputs[count % kinds]
        start = clock()
        run(images)
        end = clock()
        if count == len(taken):
            taken = np.concatenate([taken, np.full_like(taken, -1)])
        taken[count] = end - start
        count += 1
        if count >= min_count and end - begin >= min_time_ns:
            return Samples(taken[:count].copy(), warmup_count, (end - begin) / 1e9)
        if end >= report_at:
            report(min(1.0, (end - begin) / min_time_ns, count / min_count))
            report_at = end + _REPORT_EVERY_NS


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
