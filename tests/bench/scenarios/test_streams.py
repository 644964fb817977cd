"""SingleStream and MultiStream on a simulated clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdeploy.bench.scenarios import find
from kdeploy.bench.scenarios.base import Settings
from tests.bench.scenarios.simulated import MS, SimulatedEngine, load


def test_single_stream_gives_the_early_stopping_p90() -> None:
    """Calls of 1, 2, ... 100 ms: the third slowest, since P[Binomial(100, 0.1) <= 3] = 0.8 %."""
    made, _ = find("single-stream").measure(load(lambda call: (call + 1) * MS, Settings(min_time_s=1, min_count=100)))
    assert made.queries == made.samples == 100
    assert made.latency_ms == tuple(float(value) for value in range(1, 101))
    assert made.p90 is not None
    assert (made.metric, made.unit, made.value) == ("p90 latency", "ms", made.p90.value_ms)
    assert made.value == 98.0
    assert made.early_stopping_met
    assert made.met
    assert made.reasons == ()
    assert made.duration_s == sum(range(1, 101)) / 1000


def test_both_the_least_time_and_the_least_count_hold() -> None:
    by_time, _ = find("single-stream").measure(load(lambda _: MS, Settings(min_time_s=1, min_count=64)))
    by_count, _ = find("single-stream").measure(load(lambda _: MS, Settings(min_time_s=0.001, min_count=64)))
    assert (by_time.queries, by_count.queries) == (1000, 64)


@pytest.mark.parametrize(("name", "needed"), [("single-stream", 64), ("multi-stream", 662)])
def test_too_few_queries_give_no_metric_and_say_so(name: str, needed: int) -> None:
    for count in (needed - 1, needed):
        settings = Settings(min_time_s=0.001, min_count=count)
        made, _ = find(name).measure(load(lambda _: MS, settings, samples=8))
        enough = count == needed
        assert (made.value is not None, made.met, made.early_stopping_met) == (enough, enough, enough)
        assert made.early_stopping_count == needed
        if not enough:
            percent = 90 if name == "single-stream" else 99
            assert made.reasons == (f"{count} queries are too few: p{percent} takes {needed}",)


def test_multi_stream_counts_the_latency_of_the_whole_query() -> None:
    made, _ = find("multi-stream").measure(
        load(lambda call: 50 * MS if call % 100 == 0 else 8 * MS, Settings(min_count=1000), samples=8)
    )
    assert made.samples_per_query == 8
    assert made.samples == 8 * made.queries
    assert made.p50 is not None
    assert made.p50.value_ms == 8.0
    assert made.value == 50.0


def test_queries_are_issued_when_the_one_before_is_answered() -> None:
    made, _ = find("single-stream").measure(load(lambda call: (call % 3 + 1) * MS, Settings(min_count=64)))
    assert made.issued_ms[:4] == (0.0, 1.0, 3.0, 6.0)
    assert made.scheduled_ms == made.issued_ms


def test_the_order_of_inputs_is_random_and_the_same_for_a_seed() -> None:
    def seen(seed: int) -> list[float]:
        made = load(lambda _: MS, Settings(min_time_s=0.001, min_count=100, seed=seed))
        find("single-stream").measure(made)
        assert isinstance(made.run, SimulatedEngine)
        return made.run.seen

    assert seen(1) == seen(1) != seen(2)
    assert set(seen(1)) == {0.0, 1.0, 2.0, 3.0}


def test_progress_is_told_once_a_second() -> None:
    shares: list[float] = []
    find("single-stream").measure(
        replace(load(lambda _: MS, Settings(min_time_s=4.5, min_count=1)), report=shares.append)
    )
    assert shares == pytest.approx([1 / 4.5, 2 / 4.5, 3 / 4.5, 4 / 4.5])
