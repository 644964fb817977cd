from __future__ import annotations

import itertools

import numpy as np
import pytest

from kdeploy.quantize.least_squares import least_squares_range, squared_error


def histogram(values):
    reach = np.abs(values).max()
    return np.histogram(values, bins=8192, range=(-reach, reach))


def error_of(values, ends, symmetric=False):
    return squared_error(values, np.ones(len(values)), *ends, symmetric=symmetric)


DRAWS = {
    "normal": lambda random: random.normal(size=4000),
    "rectified": lambda random: np.maximum(random.normal(size=4000), 0),
    "heavy tail": lambda random: random.standard_t(2.5, size=4000),
    "one outlier": lambda random: np.append(random.uniform(0, 1, size=4000), 60.0),
    "negative": lambda random: -random.exponential(size=4000),
}


@pytest.mark.parametrize("name", DRAWS)
def test_no_range_of_a_grid_has_a_much_smaller_error(name):
    values = DRAWS[name](np.random.default_rng(0)).astype(np.float64)
    counts, edges = histogram(values)
    found = least_squares_range(counts.astype(float), edges, values.min(), values.max(), symmetric=False)
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    shares = np.linspace(0.05, 1, 20)
    grid = (error_of(values, (low * a, high * b)) for a, b in itertools.product(shares, shares))
    assert error_of(values, found) <= 1.05 * min(grid)
    assert error_of(values, found) <= 1.001 * error_of(values, (low, high))


def test_an_outlier_is_cut_off_and_a_uniform_is_not():
    random = np.random.default_rng(0)
    tail = random.laplace(size=200_000)
    counts, edges = histogram(tail)
    low, high = least_squares_range(counts.astype(float), edges, tail.min(), tail.max(), symmetric=False)
    assert tail.min() < low < 0 < high < tail.max()
    flat = random.uniform(-1, 1, size=4000)
    counts, edges = histogram(flat)
    ends = least_squares_range(counts.astype(float), edges, flat.min(), flat.max(), symmetric=False)
    np.testing.assert_allclose(ends, (flat.min(), flat.max()), rtol=0.03)


def test_a_symmetric_range_is_symmetric_and_the_best_of_these():
    values = np.random.default_rng(0).standard_t(2.5, size=4000)
    counts, edges = histogram(values)
    low, high = least_squares_range(counts.astype(float), edges, values.min(), values.max(), symmetric=True)
    assert low == -high
    reach = np.abs(values).max()
    tried = [error_of(values, (-reach * share, reach * share), symmetric=True) for share in np.linspace(0.02, 1, 50)]
    assert error_of(values, (low, high), symmetric=True) == pytest.approx(min(tried), rel=0.02)


def test_a_tensor_that_is_always_zero_has_no_range():
    assert least_squares_range(np.ones(4), np.zeros(5), 0.0, 0.0, symmetric=False) == (0.0, 0.0)
