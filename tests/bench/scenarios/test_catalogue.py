"""The catalogue of scenarios, and one run of each on the real clock."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kdeploy.bench import scenarios
from kdeploy.bench.inputs import Layout
from kdeploy.bench.scenarios import Settings, WallClock
from kdeploy.engines.onnxruntime import OnnxRuntime
from kdeploy.errors import UserError
from tests.bench.scenarios.simulated import MS, SimulatedClock, SimulatedEngine, queries
from tests.engines import models

LAYOUT = Layout(shape=(3,), dtype=np.dtype(np.float32))


def test_every_scenario_is_found_under_its_own_name() -> None:
    assert scenarios.names() == ["multi-stream", "offline", "server", "single-stream"]
    for name in scenarios.names():
        assert scenarios.find(name).name == name


@pytest.mark.parametrize(("typed", "meant"), [("single_stream", "single-stream"), ("servr", "server")])
def test_an_unknown_scenario_names_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(UserError, match=rf"no scenario '{typed}'\. Did you mean '{meant}'\?"):
        scenarios.find(typed)


def test_private_files_and_base_are_no_scenarios() -> None:
    for name in ("base", "-audits", "_audits"):
        with pytest.raises(UserError, match="no scenario"):
            scenarios.find(name)


def test_a_rate_and_a_bound_are_servers_alone() -> None:
    scenarios.check([])
    scenarios.check(["offline", "server"], rate=10.0, bound_ms=5.0)
    with pytest.raises(UserError, match="--rate is for the scenario server alone: add --scenario server"):
        scenarios.check(["offline"], rate=10.0)
    with pytest.raises(UserError, match="--bound-ms is for the scenario server alone"):
        scenarios.check([], bound_ms=10.0)
    with pytest.raises(UserError, match="no scenario 'sever'"):
        scenarios.check(["sever"])


def test_the_records_can_be_parts_of_a_measurement() -> None:
    """`kdeploy.bench.results` may import them: they import nothing of it."""
    program = (
        "import sys, kdeploy.bench.scenarios, kdeploy.bench.loadgen; assert 'kdeploy.bench.results' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("name", "count"), [("single-stream", 64), ("multi-stream", 662), ("server", 662), ("offline", 24_576)]
)
def test_official_durations_and_counts(name: str, count: int) -> None:
    asked = Settings(min_time_s=1, min_count=2, bound_ms=7, batch=4)
    found = scenarios.official(name, asked)
    assert (found.min_time_s, found.min_count, found.bound_ms, found.batch) == (600.0, count, 7, 4)


def test_an_official_offline_run_has_its_samples_and_its_ten_minutes() -> None:
    clock = SimulatedClock()
    settings = scenarios.official("offline", Settings(batch=16))
    found = scenarios.run_scenario(
        "offline", SimulatedEngine(clock, lambda _: 500 * MS), queries(16), settings, clock=clock
    )
    assert found.result.met
    assert found.result.samples == 24_576
    assert found.result.duration_s >= 600


def test_the_warm_up_waits_until_the_latency_has_settled() -> None:
    """Slow for the first 50 calls: none of them is measured, and Offline plans with the quick ones."""
    clock = SimulatedClock()
    engine = SimulatedEngine(clock, lambda call: 10 * MS if call < 50 else MS)
    found = scenarios.run_scenario("offline", engine, queries(), Settings(min_time_s=5), clock=clock)
    assert found.result.warmup_count % 20 == 0
    assert found.result.warmup_count >= 1000 - 450
    assert found.result.queries == 5500


def test_a_warm_up_that_never_settles_ends() -> None:
    clock = SimulatedClock()
    engine = SimulatedEngine(clock, lambda call: MS * (1 + call // 20 % 2))
    found = scenarios.run_scenario("single-stream", engine, queries(), Settings(min_time_s=30), clock=clock)
    assert 10.0 <= found.result.warmup_count * 0.0015 <= 10.1


def test_queries_of_another_size_are_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match=r"multi-stream wants queries of 8 samples, not \[1, 1, 1, 1\]"):
        scenarios.run_scenario("multi-stream", lambda query: query, queries(), Settings())


@pytest.mark.parametrize(("name", "samples"), [("single-stream", 1), ("multi-stream", 8), ("offline", 5)])
def test_an_engine_gets_queries_of_the_scenarios_size(name: str, samples: int) -> None:
    seen: set[int] = set()

    def run(query: NDArray[Any]) -> NDArray[Any]:
        seen.add(len(query))
        return query.sum(axis=1)

    settings = Settings(min_time_s=0.01, min_count=700, batch=5)
    found = scenarios.measure_engine(name, run, LAYOUT, None, settings)
    assert seen == {samples}
    assert found.result.samples_per_query == samples
    assert found.outputs.passed


def test_a_file_of_one_batch_size_gets_a_query_in_pieces() -> None:
    seen: set[int] = set()
    answer = np.zeros(4, np.float32)

    def run(query: NDArray[Any]) -> NDArray[Any]:
        seen.add(len(query))
        answer[:] = query.sum(axis=1)  # in the same memory each time
        return answer

    fixed = Layout(LAYOUT.shape, LAYOUT.dtype, batch=4)
    query = np.arange(24, dtype=np.float32).reshape(8, 3)
    assert scenarios.in_pieces(run, fixed, 8)(query).tolist() == query.sum(axis=1).tolist()
    assert seen == {4}
    with pytest.raises(UserError, match="takes batches of 4 only, and a query of 1 samples is no whole number"):
        scenarios.measure_engine("single-stream", run, fixed, None, Settings())


def test_each_scenario_on_the_real_clock_and_a_real_engine(tmp_path: Path) -> None:
    path = models.save_classifier(tmp_path / "network.onnx", in_graph=False)
    layout = Layout(shape=(1, models.SIZE, models.SIZE), dtype=np.dtype(np.float32))
    with OnnxRuntime().open_file(path, threads=1) as session:
        for name in scenarios.names():
            settings = Settings(min_time_s=0.2, min_count=662, rate=1000.0, bound_ms=1000.0)
            found = scenarios.measure_engine(name, session.run, layout, None, settings)
            assert found.result.met, found.result.reasons
            assert found.outputs.passed, found.outputs.why
            assert found.result.duration_s >= 0.2
            assert scenarios.Audited.model_validate_json(found.model_dump_json()) == found
    assert gc.isenabled()


def test_the_wall_clock_sleeps_and_wakes_in_time() -> None:
    clock = WallClock()
    before, at = time.process_time(), clock.now() + 50 * MS
    woken = clock.wait_until(at)
    assert 0 <= woken - at < 30 * MS
    assert time.process_time() - before < 0.025
    assert clock.wait_until(at) >= at
