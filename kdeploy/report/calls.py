"""What the table has no room for: other batches, what comes before a call and what is in it, as lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kdeploy.bench.results import Latency, Measurement
from kdeploy.report import figures
from kdeploy.report.rows import display_name


def lines(measurements: Sequence[Measurement]) -> list[str]:
    """For the terminal: first each batch but 1, then the beginnings, engine by engine."""
    batches = [line for one in measurements for line in _batches(one)]
    return [*batches, *(f"{display_name(one)}: {_beginnings(one)}." for one in measurements if one.load_ms is not None)]


def _batches(one: Measurement) -> Iterator[str]:
    for latency in one.latency:
        if latency.batch != 1:
            found = f"{_percentile(latency, 'p50')}, {_percentile(latency, 'p99')}"
            images = figures.significant(latency.throughput_per_s)
            yield f"{display_name(one)} at batch {latency.batch}: {found}, {images} images/s."


def _percentile(latency: Latency, name: str) -> str:
    found = getattr(latency, name)
    if found is None:
        return f"{name} {figures.NOT_AVAILABLE}"
    spread = figures.spread(found.value_ms, found.low_ms, found.high_ms)
    return f"{name} {figures.milliseconds(found.value_ms)} ms {spread}"


def _beginnings(one: Measurement) -> str:
    said = "" if one.cold_start_ms is None else f"cold start {figures.milliseconds(one.cold_start_ms)} ms, "
    said += f"load {figures.milliseconds(one.load_ms)} ms, first call {figures.milliseconds(one.first_inference_ms)} ms"
    if one.spans is None:
        return said
    parts = {name: getattr(one.spans, f"{name}_ms") for name in ("preprocess", "copies", "inference", "postprocess")}
    within = ", ".join(f"{name} {figures.milliseconds(value)} ms" for name, value in parts.items() if value is not None)
    return f"{said}; of a call {within}"
