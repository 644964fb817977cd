"""What an inference costs in energy, by every meter of the machine, or why nobody knows."""

from __future__ import annotations

from collections.abc import Sequence

from kdeploy.bench.energy.results import Energy, Estimate, MeterEnergy
from kdeploy.bench.results import Measurement
from kdeploy.report import figures
from kdeploy.report.rows import batch_one, display_name


def energy_of(measurement: Measurement) -> Energy | None:
    """At batch 1."""
    latency = batch_one(measurement)
    return None if latency is None else latency.energy


def meters_of(measurement: Measurement) -> dict[str, MeterEnergy]:
    """By the meter's name; none where nothing was measured."""
    found = energy_of(measurement)
    return {} if found is None else {one.name: one for one in found.meters}


def lines(measurements: Sequence[Measurement]) -> list[str]:
    """Sentences for the terminal: a line for each engine and meter, or one that says why there is none."""
    said = [
        f"{display_name(one)}: {millijoules(meter.joules_per_inference)} an image by {meter.name} ({meter.scope}), "
        f"{_net(meter)}."
        for one in measurements
        for meter in meters_of(one).values()
    ]
    return said or absent(measurements)


def absent(measurements: Sequence[Measurement]) -> list[str]:
    """Why there are no figures, one line of all sources; empty where nothing was asked or something was measured."""
    found = [energy for one in measurements if (energy := energy_of(one)) is not None]
    if not found or any(energy.meters for energy in found):
        return []
    reasons = dict(pair for energy in found for pair in energy.absent.items())
    return [f"Energy is not measured: {'; '.join(f'{name}: {reason}' for name, reason in reasons.items())}."]


def millijoules(found: Estimate) -> str:
    """ "1.23 mJ [1.20, 1.26]"."""
    value, low, high = (figures.significant(1000 * each) for each in (found.value, found.low, found.high))
    return f"{value} mJ [{low}, {high}]"


def _net(meter: MeterEnergy) -> str:
    net = meter.net_joules_per_inference
    return f"idle not taken off: {meter.idle_absent}" if net is None else f"{millijoules(net)} with idle taken off"
