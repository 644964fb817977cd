"""Energy where the device can tell: meters, the thread that reads them, and joules an inference.

    with Sampler(find_meters()) as sampler:
        idle = sampler.rest(10.0)          # before the load
        window, inferences = run()         # a process, sampled meanwhile from this one
    energy = sampler.energy(window, idle, inferences)

An estimate is never dressed as a measurement: a meter that can't be read, or whose readings do not support a figure,
is in `energy.absent` with the reason and what to type.
"""

from __future__ import annotations

from pathlib import Path

from kdeploy.bench.energy import sources
from kdeploy.bench.energy.base import Found, Meter, NotMeasured, Source, Window
from kdeploy.bench.energy.results import Energy
from kdeploy.bench.energy.sampler import Sampler

__all__ = ["Energy", "Found", "Meter", "NotMeasured", "Sampler", "Source", "Window", "find_meters"]


def find_meters(root: Path = Path("/")) -> Found:
    """The meters of this machine that can be read now, and why each other can't. Never raises.

    root: where the machine's files are; a recorded tree stands in for a machine that is not here.
    """
    found = [sources.find(name).find(root) for name in sources.names()]
    return Found(
        meters=tuple(meter for one in found for meter in one.meters),
        absent={name: reason for one in found for name, reason in one.absent.items()},
    )
