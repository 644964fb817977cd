from __future__ import annotations

import gc
import time

import numpy as np
import pytest

from kdeploy.bench import timing
from kdeploy.bench.statistics import MEDIAN_MIN_COUNT

INPUTS = [np.full(1, index) for index in range(3)]


def quiet(share: float) -> None:
    return None


def test_both_the_least_time_and_the_least_count_hold() -> None:
    by_time = timing.measure_calls(lambda _: None, INPUTS, min_time_s=0.05, min_count=1, report=quiet)
    assert by_time.duration_s >= 0.05
    assert len(by_time.latency_ns) > 100
    by_count = timing.measure_calls(lambda _: time.sleep(0.002), INPUTS, min_time_s=0.001, min_count=30, report=quiet)
    assert len(by_count.latency_ns) == 30


def test_never_fewer_calls_than_a_median_takes() -> None:
    found = timing.measure_calls(lambda _: time.sleep(0.001), INPUTS, min_time_s=0.0001, min_count=1, report=quiet)
    assert len(found.latency_ns) == MEDIAN_MIN_COUNT


def test_every_call_is_timed_alone() -> None:
    found = timing.measure_calls(lambda _: time.sleep(0.003), INPUTS, min_time_s=0.001, min_count=20, report=quiet)
    assert found.latency_ns.min() >= 3_000_000
    assert found.latency_ns.sum() <= found.duration_s * 1e9


def test_inputs_take_turns() -> None:
    seen: list[int] = []
    timing.measure_calls(lambda x: seen.append(int(x[0])), INPUTS, min_time_s=0.001, min_count=9, report=quiet)
    assert set(seen) == {0, 1, 2}
    assert seen[-9:].count(0) == 3


def test_the_warm_up_waits_until_the_latency_has_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that is slow for its first 50 calls, on a clock of its own."""
    now = 0
    calls = 0

    def run(_: object) -> None:
        nonlocal now, calls
        calls += 1
        now += 10_000_000 if calls <= 50 else 1_000_000

    monkeypatch.setattr(timing.time, "perf_counter_ns", lambda: now)
    found = timing.measure_calls(run, INPUTS, min_time_s=5.0, min_count=1, report=quiet)
    assert found.warmup_count >= 1000 - 450  # a second: 50 slow calls, then 500 fast ones
    assert found.warmup_count % 20 == 0
    assert set(found.latency_ns.tolist()) == {1_000_000}
    assert found.duration_s == 5.0


def test_a_warm_up_that_never_settles_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0
    calls = 0

    def run(_: object) -> None:
        nonlocal now, calls
        calls += 1
        now += 1_000_000 * (1 + calls // 20 % 2)  # windows of 1 ms and 2 ms in turn

    monkeypatch.setattr(timing.time, "perf_counter_ns", lambda: now)
    found = timing.measure_calls(run, INPUTS, min_time_s=30.0, min_count=1, report=quiet)
    assert 10.0 <= found.warmup_count * 0.0015 <= 10.1


def test_progress_is_told_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0

    def run(_: object) -> None:
        nonlocal now
        now += 1_000_000

    monkeypatch.setattr(timing.time, "perf_counter_ns", lambda: now)
    shares: list[float] = []
    timing.measure_calls(run, INPUTS, min_time_s=4.5, min_count=1, report=shares.append)
    assert shares == pytest.approx([1 / 4.5, 2 / 4.5, 3 / 4.5, 4 / 4.5], abs=0.001)


def test_more_calls_than_the_warm_up_promised_are_all_kept() -> None:
    calls = 0

    def run(_: object) -> None:
        nonlocal calls
        calls += 1
        if calls < 5:
            time.sleep(0.01)

    found = timing.measure_calls(run, INPUTS, min_time_s=0.03, min_count=1, report=quiet)
    assert len(found.latency_ns) == calls - found.warmup_count > 100
    assert found.latency_ns.min() >= 0


def test_the_garbage_collector_is_off_while_measuring_and_on_again_after_an_error() -> None:
    def run(_: object) -> None:
        assert not gc.isenabled()
        raise RuntimeError("broken engine")

    with pytest.raises(RuntimeError, match="broken engine"):
        timing.measure_calls(run, INPUTS, min_time_s=0.01, min_count=1, report=quiet)
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("count", "p90", "p99"), [(63, False, False), (64, True, False), (661, True, False), (662, True, True)]
)
def test_percentiles_that_the_count_cannot_support_are_none(count: int, p90: bool, p99: bool) -> None:
    samples = timing.Samples(np.arange(1, count + 1, dtype=np.int64) * 1_000_000, 20, 2.0)
    found = timing.latency(samples, batch=4)
    assert (found.p90 is not None, found.p99 is not None) == (p90, p99)
    assert found.throughput_per_s == 4 * count / 2.0
    assert found.samples_ms == tuple(float(value) for value in range(1, count + 1))
