"""RAPL: the energy counters of Intel and AMD processors, through the kernel's power capping framework.

Files and units: Documentation/power/powercap/powercap.rst of the Linux kernel (`energy_uj`, `max_energy_range_uj` and
`name` of each zone). Zones of the control type `intel-rapl` only: `intel-rapl-mmio` shows the same packages again. The
names of zones are those of `rapl_domain_names` in drivers/powercap/intel_rapl_common.c; core and uncore are parts of
the package and left out. `energy_uj` can be read by root only since CVE-2020-8694 (November 2020, commit 949dd0104c49
"powercap: restrict energy meter to root access").

The counter has 32 bits, so it starts over one step after `max_energy_range_uj`; that step (61 µJ or less on common
processors) is not added.
"""

from __future__ import annotations

from pathlib import Path

from kdeploy.bench.energy import sysfs
from kdeploy.bench.energy.base import Found, Meter, NotMeasured, Source

_SCOPES = {
    "package": ("package", "the processor package: cores, caches, memory controller, built-in graphics"),
    "dram": ("memory", "the memory modules of this package"),
    "psys": ("platform", "the platform, as much of it as the board's maker connected"),
}


class Rapl(Source):
    """Counters of packages, their memory, and the platform."""

    name = "rapl"

    def find(self, root: Path) -> Found:
        folder = root / "sys/class/powercap"
        meters: list[Meter] = []
        absent: dict[str, str] = {}
        for zone in sorted(folder.glob("intel-rapl:*")):
            name = f"{self.name} {zone.name}"
            try:
                name = f"{self.name} {_title(folder, zone)}"
                if _kind(name) in _SCOPES:
                    meters.append(Zone(name, zone))
            except NotMeasured as reason:
                absent[name] = str(reason)
        if not meters and not absent:
            absent[self.name] = (
                f"{folder} has no zone of a processor; virtual machines and arm boards have none, on a machine of "
                "one's own with an Intel or AMD processor type: sudo modprobe intel_rapl_msr"
            )
        return Found(tuple(meters), absent)


class Zone(Meter):
    """The counter of one zone; raises NotMeasured where it can't be read."""

    unit = "joules"

    def __init__(self, name: str, zone: Path) -> None:
        self.name = name
        self.scope, self.covers = _SCOPES[_kind(name)]
        self._counter = zone / "energy_uj"
        self.range_joules = sysfs.number(zone / "max_energy_range_uj") / 1e6
        self.read()

    def read(self) -> float:
        return sysfs.number(self._counter) / 1e6


def _title(folder: Path, zone: Path) -> str:
    """ "package-0", "package-0 dram", "psys"."""
    if zone.is_symlink() and not zone.exists():
        raise NotMeasured(f"{zone} leads nowhere, as in a container that hides it; measure outside of the container")
    own = sysfs.text(zone / "name")
    parent, _, _ = zone.name.rpartition(":")
    return f"{sysfs.text(folder / parent / 'name')} {own}" if ":" in parent else own


def _kind(name: str) -> str:
    """ "package" of "rapl package-0", "dram" of "rapl package-0 dram"."""
    return name.rpartition(" ")[2].partition("-")[0]
