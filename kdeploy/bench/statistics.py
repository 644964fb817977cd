"""What so many samples can support: percentiles with their intervals, and the interval of an accuracy."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from kdeploy.bench.results import Percentile

CONFIDENCE = 0.99
"""Of percentiles and their intervals."""

MEDIAN_MIN_COUNT = 8
"""The fewest samples whose smallest and largest enclose the median with 99 % confidence: 2 * 0.5^8 < 0.01."""


def percentile_estimate(sorted_ms: NDArray[np.float64], p: float) -> Percentile | None:
    """The latency that a share `p` of calls does not exceed, or None where so few samples can't support it.

    sorted_ms: `[n]`, ascending. For p = 0.5 the value is the sample median. Above, it is MLPerf LoadGen's
    early-stopping estimate with tolerance 0: the t-th largest sample, where t is the largest count for which
    P[Binomial(n, 1 - p) <= t] <= 1 - 0.99. It is an upper estimate: at least the true percentile in 99 of 100 runs.
    It wants t >= 1, that is 64 samples for p90, 662 for p99, 6,636 for p99.9.

    low and high are the two order statistics that enclose the true percentile, whatever the distribution, with 99 %
    confidence, half of the risk on each side (David and Nagaraja, Order Statistics, section 7.1). Samples are taken
    as independent, as in LoadGen.
    """
    n = len(sorted_ms)
    risk = (1 - CONFIDENCE) / 2
    below = _largest_count(n, p, risk)
    above = _largest_count(n, 1 - p, risk)
    if below < 0 or above < 0:
        return None
    low, high = float(sorted_ms[below]), float(sorted_ms[n - 1 - above])
    if p == 0.5:
        return Percentile(value_ms=float(np.median(sorted_ms)), low_ms=low, high_ms=high)
    slower = _largest_count(n, 1 - p, 1 - CONFIDENCE)
    if slower < 1:
        return None
    value = float(sorted_ms[n - slower])
    # The estimate may sit one sample above the interval's own upper end; the interval then reaches up to it.
    return Percentile(value_ms=value, low_ms=low, high_ms=max(high, value))


def early_stopping_min_count(p: float) -> int:
    """The fewest samples that support the early-stopping estimate of percentile `p` (0 < p < 1)."""
    return next(n for n in itertools.count(2) if p**n + n * (1 - p) * p ** (n - 1) <= 1 - CONFIDENCE)


def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927): low and high, as shares of 1. `total` is above 0."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = correct / total
    center = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, center - half), min(1.0, center + half)


def _largest_count(n: int, p: float, level: float) -> int:
    """The largest k with P[Binomial(n, p) <= k] <= level; -1 where there is none."""
    if n == 0:
        return -1
    k = np.arange(1, n + 1)
    steps = np.log((n + 1 - k) / k) + math.log(p / (1 - p))  # log of pmf(k) / pmf(k - 1)
    log_pmf = n * math.log1p(-p) + np.concatenate([[0.0], np.cumsum(steps)])
    cdf = np.cumsum(np.exp(log_pmf))
    return int(np.searchsorted(cdf, level, side="right")) - 1
