"""SingleStream: one sample a query, one query after another, as on a phone that waits for each answer."""

from __future__ import annotations

from kdeploy.bench.scenarios._closed_loop import latency_at
from kdeploy.bench.scenarios._timeline import Timeline
from kdeploy.bench.scenarios.base import Load, Scenario, ScenarioResult

_P = 0.90


class SingleStream(Scenario):
    """The metric is the 90th percentile of the latency."""

    name = "single-stream"
    official_count = 64  # by early stopping

    def measure(self, load: Load) -> tuple[ScenarioResult, Timeline]:
        return latency_at(_P, load, self, "p90 latency")
