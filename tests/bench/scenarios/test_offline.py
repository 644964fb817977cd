"""Offline on a simulated clock."""

from __future__ import annotations

import pytest

from kdeploy.bench.scenarios import find
from kdeploy.bench.scenarios.base import Settings
from tests.bench.scenarios.simulated import MS, load


def test_samples_a_second_of_a_run_a_tenth_longer_than_asked() -> None:
    made, timeline = find("offline").measure(
        load(lambda _: 4 * MS, Settings(batch=8, min_time_s=10), samples=8, typical_ns=4 * MS)
    )
    assert (made.queries, made.samples, made.duration_s) == (2750, 22_000, 11.0)
    assert (made.value, made.unit) == (2000.0, "samples/s")
    assert made.met
    assert (made.early_stopping_met, made.early_stopping_count, made.p50, made.p99) == (None, None, None, None)
    assert set(made.scheduled_ms) == {0.0}
    assert made.latency_ms[:2] == (4.0, 8.0)
    assert made.issued_ms[:2] == (0.0, 4.0)
    assert len(timeline.log.kept) == 64


def test_the_least_count_is_of_samples() -> None:
    made, _ = find("offline").measure(
        load(lambda _: 1000 * MS, Settings(batch=8, min_time_s=1, min_count=100), samples=8, typical_ns=1000 * MS)
    )
    assert made.samples == 104  # whole batches


def test_an_engine_quicker_than_in_the_warm_up_gets_more_samples() -> None:
    made, _ = find("offline").measure(load(lambda _: MS, Settings(min_time_s=10), typical_ns=3 * MS))
    assert made.met
    assert made.queries == 11_000


def test_a_run_that_stays_too_short_says_so() -> None:
    """An engine that grows quicker with each call never lasts as long as it promised."""
    made, _ = find("offline").measure(
        load(
            lambda call: max(1000, 4 * MS // (1 + call // 200)), Settings(min_time_s=10, min_count=1), typical_ns=4 * MS
        )
    )
    assert not made.met
    assert made.reasons == (f"it lasted {made.duration_s:.3g} s, and 10 s are asked for",)
    assert made.value == pytest.approx(made.samples / made.duration_s)
