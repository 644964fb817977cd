"""What of a machine may move while something is measured on it: clocks, heat, throttling, other programs, swapping.

Linux. What a machine does not let this process read is left empty, and `unread` names it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

_CPU = "sys/devices/system/cpu"
_THROTTLING_COOLERS = ("cpufreq", "thermal-cpufreq", "processor")
"""Beginnings of the types of cooling devices that slow a processor down; fans are cooling devices too."""
_PI_FLAGS = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}
_PI_SINCE_BOOT = 16
"""The same flags, moved by this many bits, say that it has happened since the board was started."""


class Conditions(BaseModel):
    """One moment. Times are in seconds since some fixed point, frequencies in MHz, temperatures in degrees Celsius.

    processor_s: of each core, the time that it worked (or that a hypervisor took from it) since boot. own_s: processor
    time of this process. throttle_counts: how often something slowed the processor down, since boot. throttle_states:
    what does so now, where it is above 0. swapped_pages: since boot, in and out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    at_s: float
    own_s: float
    processor_s: dict[int, float] = {}
    stolen_s: float = 0.0
    swapped_pages: int | None = None
    frequency_mhz: dict[int, float] = {}
    governors: tuple[str, ...] = ()
    temperature_c: dict[str, float] = {}
    throttle_counts: dict[str, int] = {}
    throttle_states: dict[str, int] = {}

    def unread(self) -> list[str]:
        """The names of what this machine does not tell."""
        told = {
            "the clock's frequency": self.frequency_mhz,
            "the frequency governor": self.governors,
            "temperatures": self.temperature_c,
            "throttling": self.throttle_counts or self.throttle_states,
            "the load of other programs": self.processor_s,
        }
        missing = [name for name, found in told.items() if not found]
        return missing if self.swapped_pages is not None else [*missing, "swapping"]


def read(root: Path = Path("/")) -> Conditions:
    """The conditions of this moment; `root` is where `/proc` and `/sys` are. Never raises."""
    cpu = root / _CPU
    processor_s, stolen_s = _processor_time(_text(root / "proc/stat"))
    return Conditions(
        at_s=time.monotonic(),
        own_s=time.process_time(),
        processor_s=processor_s,
        stolen_s=stolen_s,
        swapped_pages=_swapped_pages(_text(root / "proc/vmstat")),
        frequency_mhz=frequencies_mhz(root=root),
        governors=tuple(sorted({_text(path) for path in cpu.glob("cpu[0-9]*/cpufreq/scaling_governor")} - {""})),
        temperature_c=_temperatures(root),
        throttle_counts={**_throttle_counts(root), **_pi_flags(root, _PI_SINCE_BOOT)},
        throttle_states={**_cooling(root), **_pi_flags(root, 0)},
    )


def frequencies_mhz(cores: Iterable[int] | None = None, root: Path = Path("/")) -> dict[int, float]:
    """The present clock of these cores, or of all; those that do not tell theirs are left out."""
    if cores is None:
        found = sorted((root / _CPU).glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
        cores = [int(path.parts[-3].removeprefix("cpu")) for path in found]
    read_khz = {core: _text(root / _CPU / f"cpu{core}/cpufreq/scaling_cur_freq") for core in cores}
    return {core: int(khz) / 1000 for core, khz in read_khz.items() if khz.isdigit()}


def _processor_time(stat: str) -> tuple[dict[int, float], float]:
    """From `/proc/stat` (proc(5)): busy seconds of each core, stolen time among them, and the stolen ones of all."""
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    busy, stolen = {}, 0.0
    for line in stat.splitlines():
        name, *fields = line.split()
        if not (name.startswith("cpu") and name[3:].isdigit()):
            continue
        user, nice, system, _, _, irq, softirq, steal = (int(value) * tick_s for value in fields[:8])
        busy[int(name[3:])] = user + nice + system + irq + softirq + steal
        stolen += steal
    return busy, stolen


def _swapped_pages(vmstat: str) -> int | None:
    counts = [int(line.split()[1]) for line in vmstat.splitlines() if line.startswith(("pswpin ", "pswpout "))]
    return sum(counts) if counts else None


def _temperatures(root: Path) -> dict[str, float]:
    """By thermal zone; a zone that is switched off answers with an error and is left out."""
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    read_mc = {f"{_text(zone / 'type')} ({zone.name})": _text(zone / "temp") for zone in zones}
    return {name: int(value) / 1000 for name, value in read_mc.items() if value.lstrip("-").isdigit()}


def _throttle_counts(root: Path) -> dict[str, int]:
    """x86 counts thermal events by core and package, a Jetson over-current events (Jetson Linux guide)."""
    paths = [
        *(root / _CPU).glob("cpu[0-9]*/thermal_throttle/*_throttle_count"),
        *(root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt"),
    ]
    read_counts = {str(path.relative_to(root / "sys")): _text(path) for path in sorted(paths)}
    return {name: int(count) for name, count in read_counts.items() if count.isdigit()}


def _cooling(root: Path) -> dict[str, int]:
    """The states of cooling devices that work by slowing the processor (kernel, sysfs-class-thermal)."""
    devices = sorted((root / "sys/class/thermal").glob("cooling_device*"))
    read_states = {f"{_text(device / 'type')} ({device.name})": _text(device / "cur_state") for device in devices}
    return {
        name: int(state)
        for name, state in read_states.items()
        if name.lower().startswith(_THROTTLING_COOLERS) and state.isdigit()
    }


def _pi_flags(root: Path, shift: int) -> dict[str, int]:
    """A Raspberry Pi's firmware says in one word what holds now and what has happened (`vcgencmd get_throttled`)."""
    words = [_text(path) for path in (root / "sys/devices/platform").glob("soc*/soc*firmware/get_throttled")]
    if not words:
        return {}
    try:
        word = int(words[0], 16) >> shift
    except ValueError:
        return {}
    ending = " since boot" if shift else ""
    return {f"{name}{ending}": word >> bit & 1 for bit, name in _PI_FLAGS.items()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
