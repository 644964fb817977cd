"""Joules of a window, on traces whose integral is known."""

from __future__ import annotations

import numpy as np
import pytest

from kdeploy.bench.energy.base import NotMeasured, Trace, Window
from kdeploy.bench.energy.integrate import integrate

SECOND = 1_000_000_000
EPOCH = 5_000 * SECOND  # clocks do not begin at zero


def trace(times_s, values, unit, range_joules=None):
    time_ns = EPOCH + np.round(np.asarray(times_s) * SECOND).astype(np.int64)
    return Trace(time_ns, np.asarray(values, dtype=np.float64), unit, range_joules)


def window(begin_s, end_s):
    return Window(EPOCH + round(begin_s * SECOND), EPOCH + round(end_s * SECOND))


TICKS = np.arange(0, 12.01, 0.1)
RAPL_J = 262_143.328850


def test_constant_power():
    found = integrate(trace(TICKS, np.full(len(TICKS), 7.5), "watts"), window(1.03, 11.03))
    assert found.joules == pytest.approx(75.0)
    assert found.seconds == pytest.approx(10.0)
    assert found.watts == pytest.approx(7.5)
    assert found.half_width_w == pytest.approx(0.0, abs=1e-9)
    assert found.readings == 100


@pytest.mark.parametrize(("begin", "end"), [(0.0, 12.0), (1.0, 11.0), (0.05, 9.99), (2.345, 7.891)])
def test_rising_power_is_exact_between_readings_and_at_the_ends(begin, end):
    found = integrate(trace(TICKS, 2 + 3 * TICKS, "watts"), window(begin, end))
    assert found.joules == pytest.approx(2 * (end - begin) + 1.5 * (end**2 - begin**2))


def test_readings_at_uneven_times():
    random = np.random.default_rng(7)
    times = np.sort(np.concatenate([[0.0, 10.0], random.uniform(0, 10, 200)]))
    found = integrate(trace(times, 4 + np.sin(times), "watts"), window(0.5, 9.5))
    assert found.joules == pytest.approx(36 + np.cos(0.5) - np.cos(9.5), rel=1e-3)


def test_a_peak_outside_of_the_window_is_not_in_it():
    power = np.where((TICKS > 0.85) & (TICKS < 11.15), 5.0, 500.0)
    assert integrate(trace(TICKS, power, "watts"), window(1.0, 11.0)).joules == pytest.approx(50.0)


def test_counter_with_steady_power():
    found = integrate(trace(TICKS, 1000 + 30 * TICKS, "joules", RAPL_J), window(1.05, 11.05))
    assert found.joules == pytest.approx(300.0)
    assert found.half_width_w == pytest.approx(0.0, abs=1e-6)


def test_counter_that_starts_over():
    joules = (RAPL_J - 100 + 30 * TICKS) % RAPL_J
    assert (np.diff(joules) < 0).sum() == 1
    assert integrate(trace(TICKS, joules, "joules", RAPL_J), window(1, 11)).joules == pytest.approx(300.0)


def test_counter_that_starts_over_twice():
    joules = 25 * TICKS % 120  # a small range, reached every 4.8 s
    assert integrate(trace(TICKS, joules, "joules", 120.0), window(0.5, 11.5)).joules == pytest.approx(275.0)


@pytest.mark.parametrize("range_joules", [RAPL_J, None])
def test_counter_that_was_reset(range_joules):
    joules = 1000 + 30 * TICKS
    joules[60:] -= joules[60]
    with pytest.raises(NotMeasured, match="was reset meanwhile"):
        integrate(trace(TICKS, joules, "joules", range_joules), window(1, 11))


def test_counter_above_its_own_range():
    joules = 1000 + 30 * TICKS
    joules[60:] -= joules[60]
    with pytest.raises(NotMeasured, match="was reset meanwhile"):
        integrate(trace(TICKS, joules, "joules", 50.0), window(1, 11))


def test_a_reset_before_the_window_does_no_harm():
    joules = 1000 + 30 * TICKS
    joules[5:] -= joules[5]
    assert integrate(trace(TICKS, joules, "joules", RAPL_J), window(1, 11)).joules == pytest.approx(300.0)


def test_the_interval_tells_how_steady_the_power_was():
    # Ten parts of a second each, by turns 4 and 6 W: a standard deviation of 1.054 W.
    ticks = np.arange(201)
    power = np.where(ticks // 20 % 2 == 0, 4.0, 6.0)
    joules = 100 + np.concatenate([[0.0], np.cumsum(power[:-1] * 0.05)])
    found = integrate(trace(ticks * 0.05, joules, "joules"), window(0, 10))
    assert found.watts == pytest.approx(5.0)
    assert found.half_width_w == pytest.approx(3.250 * np.std([4.0, 6.0] * 5, ddof=1) / np.sqrt(10))


@pytest.mark.parametrize(
    ("times", "begin", "end", "why"),
    [
        ([], 1, 11, "it gave no reading"),
        (TICKS, -0.5, 9, "begin 0.50 s after"),
        (TICKS, 1, 14.25, "end 2.25 s before"),
        (TICKS, 1, 2.5, "16 new readings in 1.5 s, and 20 are needed; measure for longer"),
        (np.concatenate([TICKS[:30], TICKS[70:]]), 1, 11, "no reading for 4.1 of 10.0 s"),
    ],
    ids=["none", "late", "died", "few", "gap"],
)
def test_windows_that_readings_do_not_support(times, begin, end, why):
    with pytest.raises(NotMeasured, match=why):
        integrate(trace(times, np.full(len(times), 5.0), "watts"), window(begin, end))


def test_readings_of_a_counter_that_did_not_move_do_not_count():
    slow = np.floor(TICKS) * 30  # it moves once a second
    with pytest.raises(NotMeasured, match=r"10 new readings in 10\.0 s"):
        integrate(trace(TICKS, slow, "joules"), window(1.05, 11.05))


def test_an_empty_window_is_a_bug():
    with pytest.raises(ValueError, match="must end after it begins"):
        integrate(trace(TICKS, TICKS, "watts"), window(3, 3))
