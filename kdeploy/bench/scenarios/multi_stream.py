"""MultiStream: eight samples a query, one query after another, as in a car with as many cameras."""

from __future__ import annotations

from kdeploy.bench.scenarios._closed_loop import latency_at
from kdeploy.bench.scenarios._timeline import Timeline
from kdeploy.bench.scenarios.base import Load, Scenario, ScenarioResult, Settings

_P = 0.99
_STREAMS = 8


class MultiStream(Scenario):
    """The metric is the 99th percentile of a whole query's latency."""

    name = "multi-stream"
    official_count = 662

    def samples_per_query(self, settings: Settings) -> int:
        return _STREAMS

    def measure(self, load: Load) -> tuple[ScenarioResult, Timeline]:
        return latency_at(_P, load, self, "p99 latency of 8 samples")
