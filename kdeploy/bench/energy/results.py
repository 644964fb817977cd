"""The schema of energy in a measurement, and how it comes from what the meters gave."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from kdeploy.bench.energy.base import NotMeasured, Trace, Window
from kdeploy.bench.energy.integrate import Integral, integrate
from kdeploy.bench.record import Record


class Estimate(Record):
    """A figure with its 99 % confidence interval, which tells how steady the power was, not how exact the sensor is."""

    value: float
    low: float
    high: float


class Idle(Record):
    """The machine at rest, before the load."""

    watts: float
    seconds: float
    readings: int


class MeterEnergy(Record):
    """What one meter says of one run. Meters may see the same energy (a package is part of its platform): never add."""

    name: str
    scope: str
    """How much of the machine: package, memory, platform, gpu, module, board, rail, board rails, wall."""
    covers: str
    kind: Literal["counter", "power"]
    """A counter of energy, or samples of power integrated by the trapezoid rule."""
    joules: float
    seconds: float
    readings: int
    inferences: int
    idle: Idle | None
    idle_absent: str | None
    """Why there is no idle power; None where there is."""
    joules_per_inference: Estimate
    """Gross: all energy of the run."""
    net_joules_per_inference: Estimate | None
    """Idle power over the time of the run taken off; below zero where the load drowns in the idle power."""


class Sampling(Record):
    """What reading the meters cost."""

    period_s: float
    rounds: int
    cpu_share: float
    """Processor time of the sampling thread, as a share of one core; processes that a meter starts are not in it."""
    reading_ms: dict[str, float]
    """By meter, how long a reading took in the mean, waiting for the sensor or for such a process included."""


class Energy(Record):
    """Energy of one run."""

    meters: tuple[MeterEnergy, ...]
    absent: dict[str, str]
    """For each meter or source without a figure, why, and what to type."""
    sampling: Sampling


@dataclass(frozen=True)
class Sampled:
    """What one meter gave."""

    name: str
    scope: str
    covers: str
    trace: Trace
    failure: str | None
    """Why its last failed reading failed; None: none did."""


def energy_of(
    sampled: Iterable[Sampled],
    absent: Mapping[str, str],
    sampling: Sampling,
    window: Window,
    idle: Window | None,
    inferences: int,
) -> Energy:
    """Joules an inference by each meter over the window in which `inferences` (at least 1) were done.

    A batch counts as many inferences as it has images. idle: a window without the load, before; None: not measured.
    A meter whose readings do not support a figure is among the absent, with its reason.
    """
    if inferences < 1:
        raise ValueError(f"energy of {inferences} inferences was asked for")
    meters, reasons = [], dict(absent)
    for one in sampled:
        try:
            meters.append(_of_meter(one, window, idle, inferences))
        except NotMeasured as reason:
            reasons[one.name] = str(reason)
    return Energy(meters=tuple(meters), absent=reasons, sampling=sampling)


def _of_meter(one: Sampled, window: Window, idle_window: Window | None, inferences: int) -> MeterEnergy:
    load = _integrate(one, window)
    idle, idle_absent = None, "the machine was not measured at rest"
    if idle_window is not None:
        try:
            idle = _integrate(one, idle_window)
        except NotMeasured as reason:
            idle_absent = str(reason)
    return MeterEnergy(
        name=one.name,
        scope=one.scope,
        covers=one.covers,
        kind="counter" if one.trace.unit == "joules" else "power",
        joules=load.joules,
        seconds=load.seconds,
        readings=load.readings,
        inferences=inferences,
        idle=None if idle is None else Idle(watts=idle.watts, seconds=idle.seconds, readings=idle.readings),
        idle_absent=None if idle is not None else idle_absent,
        joules_per_inference=_per_inference(load.watts, load.half_width_w, load.seconds, inferences),
        net_joules_per_inference=None if idle is None else _net(load, idle, inferences),
    )


def _integrate(one: Sampled, window: Window) -> Integral:
    try:
        return integrate(one.trace, window)
    except NotMeasured as reason:
        raise NotMeasured(f"{reason}; {one.failure}" if one.failure else str(reason)) from None


def _net(load: Integral, idle: Integral, inferences: int) -> Estimate:
    half_width_w = math.hypot(load.half_width_w, idle.half_width_w)
    return _per_inference(load.watts - idle.watts, half_width_w, load.seconds, inferences)


def _per_inference(watts: float, half_width_w: float, seconds: float, inferences: int) -> Estimate:
    share = seconds / inferences
    return Estimate(value=watts * share, low=(watts - half_width_w) * share, high=(watts + half_width_w) * share)
