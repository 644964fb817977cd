from __future__ import annotations

import numpy as np
import pytest

from kdeploy.bench.statistics import MEDIAN_MIN_COUNT, early_stopping_min_count, percentile_estimate, wilson


@pytest.mark.parametrize(("p", "count"), [(0.5, 11), (0.9, 64), (0.95, 130), (0.97, 219), (0.99, 662), (0.999, 6636)])
def test_the_published_counts(p: float, count: int) -> None:
    assert early_stopping_min_count(p) == count


@pytest.mark.parametrize(("p", "count"), [(0.5, MEDIAN_MIN_COUNT), (0.9, 64), (0.99, 662), (0.999, 6636)])
def test_a_percentile_is_there_from_its_count_on(p: float, count: int) -> None:
    assert percentile_estimate(np.arange(count - 1.0), p) is None
    assert percentile_estimate(np.arange(float(count)), p) is not None


def test_no_samples_support_nothing() -> None:
    assert percentile_estimate(np.empty(0), 0.5) is None


@pytest.mark.parametrize(
    ("n", "p", "share"),
    [(1000, 0.9, 0.922), (5000, 0.9, 0.910), (10000, 0.9, 0.907), (5000, 0.99, 0.9934), (10000, 0.99, 0.9923)],
)
def test_where_the_estimate_sits(n: int, p: float, share: float) -> None:
    """The share of samples below the estimate, against figures that were computed from the distribution elsewhere."""
    found = percentile_estimate(np.arange(1.0, n + 1), p)
    assert found is not None
    assert (found.value_ms - 1) / n == pytest.approx(share, abs=0.0005)


def test_the_smallest_p99_is_the_slowest_sample() -> None:
    found = percentile_estimate(np.arange(1.0, 663), 0.99)
    assert found is not None
    assert (found.value_ms, found.high_ms) == (662.0, 662.0)


def test_the_median_of_an_even_count_lies_between() -> None:
    found = percentile_estimate(np.arange(1.0, 101), 0.5)
    assert found is not None
    # Order statistics 37 and 64 of 100: P[Binomial(100, 1/2) <= 36] = 0.0033, and 0.0060 at 37.
    assert (found.value_ms, found.low_ms, found.high_ms) == (50.5, 37.0, 64.0)


@pytest.mark.parametrize(("p", "n"), [(0.5, 30), (0.5, 501), (0.9, 64), (0.9, 300), (0.99, 662), (0.99, 1500)])
def test_intervals_hold_in_99_of_100_simulated_runs(p: float, n: int) -> None:
    """Exponential latencies, whose percentiles are known: -log(1 - p)."""
    runs = 3000
    truth = -np.log(1 - p)
    samples = np.sort(np.random.default_rng(int(1000 * p) + n).exponential(size=(runs, n)), axis=1)
    found = [percentile_estimate(row, p) for row in samples]
    enclosed = sum(f is not None and f.low_ms <= truth <= f.high_ms for f in found)
    # 99 % is the guarantee; four standard errors of 3,000 runs below it is still a pass.
    assert enclosed >= runs * (0.99 - 4 * np.sqrt(0.99 * 0.01 / runs))
    if p > 0.5:
        covered = sum(f is not None and f.value_ms >= truth for f in found)
        assert covered >= runs * (0.99 - 4 * np.sqrt(0.99 * 0.01 / runs))


def test_intervals_are_not_much_too_wide() -> None:
    """An interval that always holds would pass the simulation above: its ends must be tight order statistics."""
    found = percentile_estimate(np.arange(1.0, 10001), 0.9)
    assert found is not None
    standard_error = np.sqrt(10000 * 0.9 * 0.1)
    assert found.high_ms - found.low_ms == pytest.approx(2 * 2.576 * standard_error, rel=0.03)


def test_many_samples_do_not_underflow() -> None:
    found = percentile_estimate(np.arange(1.0, 1_000_001), 0.99)
    assert found is not None
    assert found.low_ms < 990_000 < found.value_ms < 990_500


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    # R: prop.test(x, n, correct = FALSE)$conf.int
    [(9, 10, 0.5958500, 0.9821238), (0, 10, 0.0, 0.2775328), (10, 10, 0.7224672, 1.0), (50, 100, 0.4038315, 0.5961685)],
)
def test_wilson_against_published_values(correct: int, total: int, low: float, high: float) -> None:
    assert wilson(correct, total) == pytest.approx((low, high), abs=1e-6)
