"""From readings to joules of a stretch of time. Pure functions; nothing is extrapolated."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdeploy.bench.energy.base import NotMeasured, Trace, Window

MIN_READINGS = 20
"""New readings that a window needs: two for each of the parts from which its interval comes."""

_PARTS = 10
_T_99 = 3.250  # Student's t with 9 degrees of freedom, 99 % two-sided
_LONGEST_GAP = 0.2  # of the window
_IMPLAUSIBLE_W = 10_000.0


@dataclass(frozen=True)
class Integral:
    """Energy of a window."""

    joules: float
    seconds: float
    readings: int
    """Those within the window."""
    half_width_w: float
    """Half of the 99 % confidence interval of the mean power, from ten parts of the window taken as independent.

    It tells how steady the power was. How exact the sensor is, is not in it.
    """

    @property
    def watts(self) -> float:
        return self.joules / self.seconds


def integrate(trace: Trace, window: Window) -> Integral:
    """The joules between the window's two ends.

    Power is taken as straight between two readings (the trapezoid rule), a counter likewise; at the ends of the
    window both are interpolated. A counter may start over between two readings, at most once.

    Raises NotMeasured where the readings do not reach over the whole window, leave a gap of a fifth of it, are fewer
    than 20 (a counter's that did not move do not count), or where a counter was set back.
    """
    if window.end_ns <= window.begin_ns:
        raise ValueError(f"a window must end after it begins, not at {window}")
    readings = _check(trace, window)
    needed = _around(trace, window)
    times = (needed.time_ns - window.begin_ns) / 1e9
    edges = np.linspace(0.0, window.seconds, _PARTS + 1)
    by_part = np.diff(_energy_at(edges, times, needed))
    part_watts = by_part * _PARTS / window.seconds
    return Integral(
        joules=float(by_part.sum()),
        seconds=window.seconds,
        readings=readings,
        half_width_w=_T_99 * float(part_watts.std(ddof=1)) / math.sqrt(_PARTS),
    )


def _check(trace: Trace, window: Window) -> int:
    """The number of readings within the window."""
    time_ns = trace.time_ns
    if len(time_ns) == 0:
        raise NotMeasured("it gave no reading")
    if time_ns[0] > window.begin_ns:
        raise NotMeasured(f"its readings begin {_seconds(time_ns[0] - window.begin_ns)} after the measurement does")
    if time_ns[-1] < window.end_ns:
        raise NotMeasured(f"its readings end {_seconds(window.end_ns - time_ns[-1])} before the measurement does")
    inside = (time_ns >= window.begin_ns) & (time_ns <= window.end_ns)
    count = int(inside.sum())
    if trace.unit == "joules":
        moved = np.flatnonzero(np.diff(trace.values)) + 1
        new = int(inside[moved].sum())
    else:
        new = count
    if new < MIN_READINGS:
        raise NotMeasured(
            f"it gave {new} new readings in {window.seconds:.1f} s, and {MIN_READINGS} are needed; measure for longer"
        )
    longest = float(np.diff(_around(trace, window).time_ns).max()) / 1e9
    if longest > _LONGEST_GAP * window.seconds:
        raise NotMeasured(f"it gave no reading for {longest:.1f} of {window.seconds:.1f} s")
    return count


def _around(trace: Trace, window: Window) -> Trace:
    """The readings within the window, the last one before it and the first one after it."""
    first = int(np.searchsorted(trace.time_ns, window.begin_ns, side="right")) - 1
    last = int(np.searchsorted(trace.time_ns, window.end_ns, side="left"))
    part = slice(first, last + 1)
    return Trace(trace.time_ns[part], trace.values[part], trace.unit, trace.range_joules)


def _energy_at(edges: NDArray[np.float64], times: NDArray[np.float64], trace: Trace) -> NDArray[np.float64]:
    """Joules since the first reading at each of the edges. edges: `[k]`, times: `[n]`, both in seconds."""
    if trace.unit == "joules":
        return np.interp(edges, times, _unwrapped(times, trace))
    steps = np.diff(times) * (trace.values[1:] + trace.values[:-1]) / 2
    total = np.concatenate([[0.0], np.cumsum(steps)])
    before = np.searchsorted(times, edges, side="right") - 1
    watts = np.interp(edges, times, trace.values)
    return np.asarray(total[before] + (edges - times[before]) * (trace.values[before] + watts) / 2)


def _unwrapped(times: NDArray[np.float64], trace: Trace) -> NDArray[np.float64]:
    """Joules since the first reading, `[n]`, of a counter that may have started over."""
    steps = np.diff(trace.values)
    back = steps < 0
    if back.any():
        if trace.range_joules is None:
            raise NotMeasured("its counter went back, so it was reset meanwhile")
        steps = np.where(back, steps + trace.range_joules, steps)
        # A counter that was set to 0 looks as if it had gone on to its end within one period.
        if (steps[back] < 0).any() or (steps[back] / np.diff(times)[back] > _IMPLAUSIBLE_W).any():
            raise NotMeasured("its counter went back without having reached its end, so it was reset meanwhile")
    return np.concatenate([[0.0], np.cumsum(steps)])


def _seconds(ns: np.int64) -> str:
    return f"{float(ns) / 1e9:.2f} s"
