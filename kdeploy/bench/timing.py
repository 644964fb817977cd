"""The measuring loop: warm-up, then single calls one after another with the clock read around each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdeploy.bench.results import Latency, Watched
from kdeploy.bench.statistics import MEDIAN_MIN_COUNT, percentile_estimate
from kdeploy.bench.warming import Warm, no_garbage_collection, warm_up
from kdeploy.bench.watching import Watch

Run = Callable[[NDArray[Any]], object]
Report = Callable[[float], None]
"""Called about once a second, outside the clock, with the share that is done."""

_REPORT_EVERY_NS = 1_000_000_000


@dataclass(frozen=True)
class Samples:
    """Calls in order. latency_ns: int64 `[count]`; duration_s: from the first call's start to the last one's end.

    settled: whether the latency had settled when the warm-up ended; None: nobody looked.
    """

    latency_ns: NDArray[np.int64]
    warmup_count: int
    duration_s: float
    settled: bool | None = None


def measure_calls(
    run: Run,
    inputs: Sequence[NDArray[Any]],
    *,
    min_time_s: float,
    min_count: int,
    report: Report,
    watch: Watch | None = None,
) -> Samples:
    """Warm up, then call `run` on the inputs in turn for at least `min_time_s` and `min_count` calls.

    Never fewer than the 8 calls that a median with its interval takes. Python's garbage collector is off meanwhile.
    watch: begins after the warm-up, and looks where progress is reported; the caller ends it.
    """
    min_count = max(min_count, MEDIAN_MIN_COUNT)
    with no_garbage_collection():
        warm = warm_up(run, inputs, min_time_s)
        if watch is not None:
            watch.begin()
        return _loop(run, inputs, min_time_s, min_count, warm, report, watch)


def latency(samples: Samples, batch: int, watched: Watched | None = None) -> Latency:
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
        p95=percentile_estimate(ascending, 0.95),
        p99=percentile_estimate(ascending, 0.99),
        p99_9=percentile_estimate(ascending, 0.999),
        throughput_per_s=batch * len(ascending) / samples.duration_s,
        samples_ms=tuple(in_order.tolist()),
        watched=watched,
        settled=samples.settled,
    )


def _loop(
    run: Run,
    inputs: Sequence[NDArray[Any]],
    min_time_s: float,
    min_count: int,
    warm: Warm,
    report: Report,
    watch: Watch | None,
) -> Samples:
    min_time_ns = int(min_time_s * 1e9)
    # Room for twice the calls that the warm-up promises, written to now so that no page faults come later.
    taken = np.full(2 * max(min_count, int(min_time_ns / max(warm.typical_ns, 1.0))), -1, dtype=np.int64)
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
            return Samples(taken[:count].copy(), warm.calls, (end - begin) / 1e9, warm.settled)
        if end >= report_at:
            report(min(1.0, (end - begin) / min_time_ns, count / min_count))
            if watch is not None:
                watch.look()
            report_at = end + _REPORT_EVERY_NS
