"""Server on a simulated clock: against queueing theory, against Lindley's recursion, and with a stall."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from kdeploy.bench.scenarios import find
from kdeploy.bench.scenarios._rates import highest_rate
from kdeploy.bench.scenarios._timeline import OutputLog
from kdeploy.bench.scenarios.base import Settings
from kdeploy.bench.scenarios.server import Server, arrivals, serve
from tests.bench.scenarios.simulated import MS, load


def waits_at_most(t: float, load_: float) -> float:
    """P[wait <= t] in M/D/1 with service time 1 (Crommelin 1934)."""
    terms = ((load_ * (k - t)) ** k / math.factorial(k) * math.exp(-load_ * (k - t)) for k in range(int(t) + 1))
    return (1 - load_) * sum(terms)


def test_mean_and_tail_are_those_of_m_d_1() -> None:
    """Service of 1 ms at 500 a second: a mean wait of 0.5 ms (Pollaczek and Khinchine), and Crommelin's tail."""
    settings = Settings(rate=500.0, min_time_s=200.0)
    made, timeline = Server().measure(load(lambda _: MS, settings))
    waits_ms = timeline.latency_ns / 1e6 - 1.0
    assert made.queries == pytest.approx(100_000, rel=0.01)
    assert waits_ms.mean() == pytest.approx(0.5, rel=0.03)
    for t in (0.0, 0.5, 1.0, 2.0, 3.5):
        assert np.mean(waits_ms <= t + 1e-9) == pytest.approx(waits_at_most(t, 0.5), abs=0.006)


def test_every_latency_is_that_of_lindleys_recursion() -> None:
    """Service times that vary, exactly: each query begins when it is due or when the one before is answered."""
    costs = np.random.default_rng(3).integers(1, 4 * MS, 1000)
    schedule = arrivals(400.0, 1.0, 1000, np.random.default_rng(5))
    timeline = serve(load(lambda call: int(costs[call]), Settings()), schedule, late_allowed=1000)
    free, answered = 0, []
    for due, cost in zip(schedule.tolist(), costs.tolist(), strict=True):
        free = max(free, due) + cost
        answered.append(free)
    assert timeline.scheduled_ns.tolist() == schedule.tolist()
    assert timeline.answered_ns.tolist() == answered
    assert timeline.issued_ns.tolist() == [end - cost for end, cost in zip(answered, costs.tolist(), strict=True)]


def test_a_stall_shows_in_p99_though_only_one_call_was_slow() -> None:
    """One call in 3,000 takes two seconds: no p99 of the calls alone shows it, and that of the waiting users does."""
    settings = Settings(rate=100.0, min_time_s=30.0, bound_ms=15.0)
    made, timeline = Server().measure(load(lambda call: 2000 * MS if call == 1000 else MS, settings))
    calls_ms = (timeline.answered_ns - timeline.issued_ns) / 1e6
    assert np.quantile(calls_ms, 0.99) == 1.0
    assert made.p99 is not None
    assert made.p99.value_ms > 1500
    assert not made.met
    assert made.value is None
    assert made.reasons == (f"at 100 queries/s p99 is {made.p99.value_ms:.3g} ms, above 15 ms",)
    behind = timeline.issued_ns - timeline.scheduled_ns
    assert behind[1000] == pytest.approx(0, abs=3 * MS)
    assert 1900 * MS < behind[1001] <= 2000 * MS


def test_arrivals_are_a_poisson_process() -> None:
    times = arrivals(1000.0, 100.0, 1, np.random.default_rng(0))
    gaps = np.diff(times) / 1e6
    assert times[0] == 0
    assert times[-2] < 100e9 <= times[-1]
    assert gaps.mean() == pytest.approx(1.0, rel=0.02)
    assert gaps.std() == pytest.approx(1.0, rel=0.02)
    assert np.corrcoef(gaps[:-1], gaps[1:])[0, 1] == pytest.approx(0, abs=0.02)
    a_second = np.bincount((times / 1e9).astype(int))[:100]
    assert a_second.var() == pytest.approx(1000, rel=0.5)


def test_the_least_count_prolongs_the_schedule() -> None:
    assert len(arrivals(10.0, 1.0, 700, np.random.default_rng(0))) == 700


def test_the_metric_is_the_rate_of_answers() -> None:
    made, timeline = Server().measure(load(lambda _: MS, Settings(rate=200.0, min_time_s=50.0)))
    assert made.met
    assert made.rate == 200.0
    assert made.value == (made.queries - 1) / timeline.duration_s == pytest.approx(200, rel=0.05)
    assert (made.unit, made.metric) == ("queries/s", "answers with p99 within 15 ms")


def test_never_fewer_queries_than_p99_takes() -> None:
    made, _ = Server().measure(load(lambda _: MS, Settings(rate=100.0, min_time_s=0.1, min_count=1)))
    assert made.queries == 662
    assert made.p99 is not None


def test_a_rate_that_the_engine_cannot_keep_up_with_is_broken_off() -> None:
    made, _ = Server().measure(load(lambda _: 10 * MS, Settings(rate=1000.0, min_time_s=10.0)))
    assert made.duration_s == pytest.approx(20, rel=0.01)  # of a hundred that it would take
    assert made.queries == pytest.approx(2000, rel=0.01)
    assert (made.met, made.value, made.p50, made.p99, made.early_stopping_met) == (False, None, None, None, False)
    assert "at 1000 queries/s the engine does not keep up with a bound of 15 ms: given up after 20" in made.reasons[0]


@pytest.mark.parametrize("bound_ms", [3.0, 10.0])
def test_the_search_finds_the_rate_of_theory(bound_ms: float) -> None:
    """M/D/1 with 1 ms: the load at which 99 % wait no longer than bound - 1 ms."""
    loads = np.linspace(0.3, 0.99, 700)
    theory = max(load_ for load_ in loads if waits_at_most(bound_ms - 1.0, load_) >= 0.99)
    settings = Settings(bound_ms=bound_ms, min_time_s=60.0)
    made, _ = find("server").measure(load(lambda _: MS, settings, typical_ns=MS))
    assert made.met
    assert made.p99 is not None
    assert made.p99.value_ms <= bound_ms
    assert made.rate == pytest.approx(1000 * theory, rel=0.06)
    assert made.attempts[-1].met
    assert made.attempts[-1].rate == made.rate
    assert max(attempt.queries for attempt in made.attempts[:6]) < made.queries / 3


def test_a_search_is_the_same_for_a_seed() -> None:
    found = [Server().measure(load(lambda _: MS, Settings(seed=4, min_time_s=5.0)))[0] for _ in range(2)]
    assert found[0] == found[1]


def test_one_stall_in_the_search_does_not_turn_a_rate_down() -> None:
    """A stall of a second falls into the first trial alone, which is repeated."""
    settings = Settings(bound_ms=10.0, min_time_s=10.0)
    stalled, _ = Server().measure(load(lambda call: 1000 * MS if call == 50 else MS, settings))
    assert [attempt.met for attempt in stalled.attempts[:2]] == [False, True]
    assert stalled.attempts[0].rate == stalled.attempts[1].rate
    assert stalled.rate is not None
    assert stalled.rate > 700


def test_a_bound_below_the_engines_own_latency_is_never_met() -> None:
    made, timeline = Server().measure(load(lambda _: 5 * MS, Settings(bound_ms=2.0), typical_ns=5 * MS))
    assert (made.met, made.value, made.queries, made.p99) == (False, None, 0, None)
    assert made.reasons == (f"p99 is above 2 ms even at {made.attempts[-1].rate:.4g} queries/s",)
    assert sum(attempt.queries for attempt in made.attempts) < 100  # each trial is given up at the seventh late answer
    assert timeline.log.kept == []


def test_whole_runs_go_down_until_one_holds() -> None:
    """What the short trials do not see: from call 20,000 on the engine is a little slower."""
    settings = Settings(bound_ms=4.0, min_time_s=30.0)
    made, _ = Server().measure(load(lambda call: MS if call < 20_000 else 104 * MS // 100, settings))
    trials = [attempt for attempt in made.attempts if attempt.queries > 10_000]
    assert made.met
    assert [attempt.met for attempt in trials[-2:]] == [False, True]
    assert trials[-1].rate == pytest.approx(0.97 * trials[-2].rate)


def test_the_bisection_is_precise_and_ends() -> None:
    tried: list[float] = []

    def holds(rate: float) -> bool:
        tried.append(rate)
        return rate <= 617.0

    found = highest_rate(holds, 1000.0)
    assert found is not None
    assert 617.0 * 0.98 <= found <= 617.0
    assert len(tried) <= 8
    assert highest_rate(lambda _: False, 1000.0) is None
    almost = highest_rate(lambda _: True, 1000.0)
    assert almost is not None
    assert 980 <= almost < 1000


def test_progress_is_told_while_nobody_waits() -> None:
    shares: list[float] = []
    made = replace(load(lambda _: MS, Settings(rate=100.0, min_time_s=10.0)), report=shares.append)
    Server().measure(made)
    assert 9 <= len(shares) <= 11
    assert shares == sorted(shares)


def test_the_outputs_of_the_run_are_logged() -> None:
    _, timeline = Server().measure(load(lambda _: MS, Settings(rate=100.0, min_time_s=10.0)))
    assert isinstance(timeline.log, OutputLog)
    assert len(timeline.log.kept) == 64
    assert all((output == 2 * number).all() for number, output in timeline.log.kept)
