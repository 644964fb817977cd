from __future__ import annotations

import pytest

from kdeploy.bench.loadgen import LoadgenResult
from kdeploy.bench.scenarios import Audited, Settings, run_scenario
from kdeploy.report.scenarios import lines, loadgen_lines
from tests.bench.scenarios.simulated import MS, SimulatedClock, SimulatedEngine, queries


def run(name: str, settings: Settings, kinds: int = 4) -> Audited:
    clock = SimulatedClock()
    samples = 8 if name == "multi-stream" else 1
    return run_scenario(name, SimulatedEngine(clock, lambda _: MS), queries(samples, kinds), settings, clock=clock)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("single-stream", "single-stream: p90 latency 1.00 ms [1.00, 1.00], 1,000 queries in 1.0 s."),
        ("multi-stream", "multi-stream: p99 latency of 8 samples 1.00 ms [1.00, 1.00], 1,000 queries in 1.0 s."),
        ("offline", "offline: throughput 1,000 samples/s, 1,100 samples in 1.1 s."),
    ],
)
def test_the_metric_comes_with_its_interval_and_count(name: str, said: str) -> None:
    assert lines(run(name, Settings(min_time_s=1.0))) == [said]


def test_server_says_the_bound_and_its_p99() -> None:
    found = run("server", Settings(min_time_s=5.0, rate=200.0))
    rate, p99 = found.result.value, found.result.p99
    assert rate is not None
    assert p99 is not None
    assert lines(found) == [
        f"server: answers with p99 within 15 ms {rate:.0f} queries/s, p99 {p99.value_ms:.2f} ms "
        f"[{p99.low_ms:.2f}, {p99.high_ms:.2f}], {found.result.queries:,} queries in {found.result.duration_s:.1f} s."
    ]


def test_what_is_missing_or_failed_is_said() -> None:
    found = run("single-stream", Settings(min_time_s=0.01, min_count=20), kinds=1)
    outputs = found.outputs.model_copy(update={"passed": False, "why": "2 of 20 logged outputs differ"})
    assert lines(found.model_copy(update={"outputs": outputs})) == [
        "single-stream: p90 latency n/a, 20 queries in 0.0 s.",
        "single-stream: rules not met: 20 queries are too few: p90 takes 64.",
        "single-stream: audit of outputs FAILED: 2 of 20 logged outputs differ.",
        f"single-stream: caching was not audited: {found.caching.why}.",
    ]


def test_loadgens_verdict_is_its_own() -> None:
    found = LoadgenResult(
        scenario="Server",
        loadgen="6.0.17",
        valid=False,
        constraints={"Performance constraints": False, "Min duration": True},
        metric="answers",
        unit="queries/s",
        value=500.25,
        percentiles_ms={},
        recommendations=("Reduce target QPS to improve latency.",),
        parameters={},
        folder="logs",
    )
    assert loadgen_lines(found) == [
        "LoadGen 6.0.17 Server: INVALID, answers 500 queries/s.",
        "LoadGen Server: not satisfied: Performance constraints.",
        "LoadGen Server: Reduce target QPS to improve latency.",
    ]
