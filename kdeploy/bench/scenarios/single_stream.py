"""SingleStream: one sample a query, one query after another, as on a phone that waits for each answer."""

from __future__ import annotations

from kdeploy.bench.scenarios._closed_loop import closed_loop
from kdeploy.bench.scenarios._timeline import Timeline
from kdeploy.bench.scenarios.base import Load, Scenario, ScenarioResult, result, too_few, within

_P = 0.90


class SingleStream(Scenario):
    """The metric is the 90th percentile of the latency."""

    name = "single-stream"
    official_count = 64  # by early stopping

    def measure(self, load: Load) -> tuple[ScenarioResult, Timeline]:
        timeline = closed_loop(load)
        found = within(timeline, _P)
        made = result(
            load,
            timeline,
            scenario=self,
            metric="p90 latency",
            unit="ms",
            value=None if found is None else found.value_ms,
            reasons=too_few(len(timeline.latency_ns), _P),
            p=_P,
        )
        return made, timeline
