"""What so many samples can support: percentiles with their intervals, and the interval of an accuracy."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from kdeploy.bench.record import Percentile

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


def mcnemar(only_first: int, only_second: int) -> float:
    """How likely so unequal a disagreement is by chance: the exact two-sided p of McNemar's test (1947).

    only_first, only_second: on how many of the same samples one was right and the other wrong. Under equal accuracy
    each disagreement is a fair coin.
    """
    total = only_first + only_second
    fewer = min(only_first, only_second)
    logs = [math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) for k in range(fewer + 1)]
    return min(1.0, 2 * math.fsum(math.exp(log - total * math.log(2)) for log in logs))


def t_quantile(probability: float, degrees: int) -> float:
    """The quantile of Student's t distribution for a probability in (0.5, 1), exact to 1e-12 relative.

    Bisection on the closed form for whole degrees of freedom (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4).
    """
    low, high = 0.0, 1.0
    while _t_within(high, degrees) < 2 * probability - 1:
        low, high = high, 2 * high
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if _t_within(middle, degrees) < 2 * probability - 1:
            low = middle
        else:
            high = middle
    return high


def _t_within(t: float, degrees: int) -> float:
    """P(|T| <= t)."""
    angle = math.atan2(t, math.sqrt(degrees))
    cosine = math.cos(angle)
    odd = degrees % 2
    total, term = 0.0, cosine if odd else 1.0
    for step in range(degrees // 2):
        total += term
        term *= cosine**2 * (2 * step + 1 + odd) / (2 * step + 2 + odd)
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total


def _largest_count(n: int, p: float, level: float) -> int:
    """The largest k with P[Binomial(n, p) <= k] <= level; -1 where there is none."""
    if n == 0:
        return -1
    k = np.arange(1, n + 1)
    steps = np.log((n + 1 - k) / k) + math.log(p / (1 - p))  # log of pmf(k) / pmf(k - 1)
    log_pmf = n * math.log1p(-p) + np.concatenate([[0.0], np.cumsum(steps)])
    cdf = np.cumsum(np.exp(log_pmf))
    return int(np.searchsorted(cdf, level, side="right")) - 1
