"""MLPerf's audits catch what they are there for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kdeploy.bench.scenarios import Settings, run_scenario
from kdeploy.bench.scenarios._audits import audit_caching, audit_outputs
from kdeploy.bench.scenarios._timeline import OutputLog
from tests.bench.scenarios.simulated import MS, SimulatedClock, SimulatedEngine, queries

QUICK = Settings(min_time_s=0.2, min_count=662, rate=100.0)


@pytest.mark.parametrize("name", ["single-stream", "multi-stream", "server", "offline"])
def test_an_honest_engine_passes_both(name: str) -> None:
    clock = SimulatedClock()
    samples = 8 if name == "multi-stream" else 1
    found = run_scenario(name, SimulatedEngine(clock, lambda _: MS), queries(samples), QUICK, clock=clock)
    assert found.outputs.passed
    assert found.outputs.logged == 64
    assert found.outputs.digest == found.outputs.expected_digest
    assert found.outputs.largest_difference == 0.0
    assert found.outputs.why == "all of 64 logged outputs equal those of the accuracy run"
    assert found.caching.passed
    assert (found.caching.faster, found.caching.varied_ms, found.caching.repeated_ms) == (0.0, 1.0, 1.0)


def test_an_engine_that_skips_its_work_when_timed_is_found_out() -> None:
    """It answers rightly for the accuracy run and the warm-up, and with its last answer once it is timed."""
    clock = SimulatedClock()
    honest = SimulatedEngine(clock, lambda _: MS)
    stale: list[NDArray[Any]] = []

    def run(query: NDArray[Any]) -> NDArray[Any]:
        answer = honest(query)
        if honest.calls < 240:
            stale[:] = [answer]
        return stale[0]

    found = run_scenario("single-stream", run, queries(), QUICK, clock=clock)
    assert not found.outputs.passed
    assert found.outputs.differing > 32
    assert found.outputs.digest != found.outputs.expected_digest
    assert found.outputs.why == f"{found.outputs.differing} of 64 logged outputs differ from those of the accuracy run"
    assert found.outputs.largest_difference is not None
    assert found.outputs.largest_difference > 0


def test_one_bit_is_a_difference() -> None:
    log = OutputLog()
    log.keep(0, np.float32([1.0, 2.0]))
    expected = np.float32([1.0, np.nextafter(np.float32(2.0), np.float32(3.0))])
    found = audit_outputs(log, [expected])
    assert (found.passed, found.differing) == (False, 1)
    assert found.largest_difference == pytest.approx(2.4e-7, rel=0.01)


def test_numbers_that_are_none_can_be_equal_and_other_shapes_differ() -> None:
    log = OutputLog()
    log.keep(0, np.float32([np.nan]))
    log.keep(1, np.float32([1.0, 1.0]))
    found = audit_outputs(log, [np.float32([np.nan]), np.float32([1.0])])
    assert (found.differing, found.largest_difference) == (1, None)


def test_nothing_logged_is_not_passed() -> None:
    found = audit_outputs(OutputLog(), [])
    assert (found.passed, found.why) == (False, "no output was logged: no query was answered")


def test_a_runtime_that_answers_in_the_same_memory_is_no_difference() -> None:
    clock, answer = SimulatedClock(), np.zeros((1, 3), np.float32)

    def run(query: NDArray[Any]) -> NDArray[Any]:
        clock.time += MS
        answer[:] = query * 2
        return answer

    assert run_scenario("single-stream", run, queries(), QUICK, clock=clock).outputs.passed


@pytest.mark.parametrize(("repeated_ns", "passed"), [(MS // 10, False), (890_000, False), (920_000, True), (MS, True)])
def test_an_engine_that_remembers_its_last_input_is_found_out(repeated_ns: int, passed: bool) -> None:
    clock = SimulatedClock()
    last: list[float] = []

    def run(query: NDArray[Any]) -> NDArray[Any]:
        clock.time += repeated_ns if last == [query.flat[0]] else MS
        last[:] = [query.flat[0]]
        return query

    found = audit_caching(run, queries(), clock, MS, seed=0)
    assert found.passed is passed
    assert found.repeated_ms == repeated_ns / 1e6
    assert found.faster == pytest.approx(MS / repeated_ns - 1)
    assert f"{MS / repeated_ns - 1:.1%} faster than different ones; 10% faster is allowed" in found.why


def test_the_drift_of_a_machine_is_no_caching() -> None:
    """Blocks lie beside each other: an engine that gets a half slower over the audit is the same on both sides."""
    clock = SimulatedClock()
    found = audit_caching(
        SimulatedEngine(clock, lambda call: MS + call * MS // 800), queries(), clock, typical_ns=MS, seed=0
    )
    assert found.calls == 200
    assert found.faster == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("same", [queries(kinds=1), queries(kinds=1) * 4])
def test_one_input_alone_cannot_be_audited(same: list[NDArray[Any]]) -> None:
    clock = SimulatedClock()
    found = audit_caching(SimulatedEngine(clock, lambda _: MS), same, clock, MS, seed=0)
    assert (found.passed, found.calls) == (None, 0)
    assert "there is one input only" in found.why


def test_the_log_is_a_uniform_sample_of_a_run_of_any_length() -> None:
    drawn: Counter[int] = Counter()
    for seed in range(400):
        log = OutputLog(size=10, seed=seed)
        for count in range(200):
            if count == log.next:
                log.keep(count, np.zeros(1))
        assert len({number for number, _ in log.kept}) == 10
        drawn.update(number // 20 for number, _ in log.kept)
    shares = np.array([drawn[tenth] for tenth in range(10)]) / 4000
    assert shares == pytest.approx(np.full(10, 0.1), abs=0.02)  # four standard errors


def test_a_log_of_few_keeps_all() -> None:
    log = OutputLog(size=10)
    for count in range(7):
        assert count == log.next
        log.keep(count, np.zeros(1))
    assert [number for number, _ in log.kept] == list(range(7))
