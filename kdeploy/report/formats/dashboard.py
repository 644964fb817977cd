"""The `customSmallerIsBetter` JSON of continuous-benchmark dashboards (github-action-benchmark and those like it)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kdeploy.bench.results import Measurement
from kdeploy.report.rows import batch_one, display_name


def dashboard(measurements: Sequence[Measurement], prefix: str = "") -> list[dict[str, Any]]:
    """A list of `name`, `unit`, `value`, and `range` where there is an interval; of all of them less is better.

    Latencies at batch 1 in ms, bytes on disk, peak memory in bytes, and the error in percent, since of accuracy more
    is better. prefix: stands before each name, such as the run's, so that several runs can share a dashboard.
    """
    before = f"{prefix} · " if prefix else ""
    return [
        {**figure, "name": f"{before}{display_name(one)} · {figure['name']}"}
        for one in measurements
        for figure in _figures(one)
    ]


def _figures(one: Measurement) -> Iterator[dict[str, Any]]:
    latency = batch_one(one)
    if latency is not None:
        extra = f"{latency.count} calls on {one.machine.get('processor')}, {one.threads} threads"
        percentiles = {"p50": latency.p50, "p90": latency.p90, "p95": latency.p95, "p99": latency.p99}
        for name, found in (*percentiles.items(), ("p99.9", latency.p99_9)):
            if found is not None:
                spread = max(found.value_ms - found.low_ms, found.high_ms - found.value_ms)
                yield {"name": name, "unit": "ms", "value": found.value_ms, "range": f"± {spread:.3g}", "extra": extra}
    yield {"name": "size", "unit": "bytes", "value": one.size_bytes}
    if one.memory is not None:
        yield {"name": "peak memory", "unit": "bytes", "value": one.memory.peak_bytes}
    accuracy = one.accuracy
    if accuracy is not None:
        spread = 100 * max(accuracy.value - accuracy.low, accuracy.high - accuracy.value)
        extra = f"{accuracy.samples} images of {accuracy.split}"
        error = 100 * (1 - accuracy.value)
        yield {"name": "top-1 error", "unit": "%", "value": error, "range": f"± {spread:.3g}", "extra": extra}
