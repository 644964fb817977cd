"""What this machine is and how much of it this process may use; Linux, standard library only."""

from __future__ import annotations

import functools
import math
import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from kdeploy.machine.processor import Processor, parse_cpuinfo

_PACKAGES = ("numpy", "onnxruntime", "openvino", "tensorrt", "torch")
_QEMU_USER = "qemu-"


def instruction_sets() -> frozenset[str]:
    """The instruction sets of this machine that matter, by their names in `/proc/cpuinfo` (`processor.MEANINGFUL`)."""
    return processor().instruction_sets


def cores() -> int:
    """Processor cores that this process may use: its affinity mask, and a container's CPU quota rounded up."""
    allowed = len(os.sched_getaffinity(0))
    quota = parse_cpu_quota(_read("/sys/fs/cgroup/cpu.max"))
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def memory_bytes() -> int:
    """Memory that this process may use: the machine's, or a container's limit where that is lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read("/sys/fs/cgroup/memory.max")
    return min(total, int(limit)) if limit and limit.isdigit() else total


def free_memory_bytes() -> int:
    """Memory that this process could take now without swapping: what the kernel estimates, within a container's limit.

    Caches of files count as free, as they can be dropped.
    """
    found = re.search(r"MemAvailable:\s+(\d+) kB", _read("/proc/meminfo") or "")
    free = int(found[1]) << 10 if found else memory_bytes()
    limit, used = _read("/sys/fs/cgroup/memory.max"), _read("/sys/fs/cgroup/memory.current")
    if not (limit and used and limit.isdigit() and used.isdigit()):
        return free
    dropped = re.search(r"^inactive_file (\d+)", _read("/sys/fs/cgroup/memory.stat") or "", re.MULTILINE)
    return min(free, max(0, int(limit) - int(used) + (int(dropped[1]) if dropped else 0)))


def fingerprint() -> dict[str, Any]:
    """This machine as JSON-able data, for beside a measurement.

    Frequencies are in MHz, memory in bytes; what cannot be read is None. Versions are those installed; nothing is
    imported for them. The load average is that of the moment of the call (1, 5, 15 minutes).
    """
    cpu = processor()
    return {
        "processor": cpu.model,
        "board": board(),
        "architecture": platform.machine(),
        "cores": {"logical": os.cpu_count(), "usable": cores()},
        "memory_bytes": memory_bytes(),
        "instruction_sets": sorted(cpu.instruction_sets),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "frequency_mhz": {name: _frequency_mhz(name) for name in ("min", "max", "cur")},
        "kernel": platform.release(),
        "os": _os_name(),
        "python": platform.python_version(),
        "packages": {name: installed_version(name) for name in _PACKAGES},
        "nvidia_driver": _read("/sys/module/nvidia/version"),
        "container": container(),
        "virtual_machine": cpu.virtual,
        "emulation": emulated(),
        "load_average": list(os.getloadavg()),
    }


@functools.cache
def processor() -> Processor:
    """This machine's processor."""
    return parse_cpuinfo(_read("/proc/cpuinfo") or "")


def board() -> str | None:
    """The board's name from the device tree ("Raspberry Pi 5 Model B Rev 1.0"), None where there is no device tree."""
    return _read("/proc/device-tree/model") or processor().board


def installed_version(package: str) -> str | None:
    """The installed version of a distribution, without importing it; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def parse_cpu_quota(text: str | None) -> float | None:
    """Cores granted by a control group's `cpu.max` ("150000 100000" is 1.5); None: no limit."""
    if not text or text.startswith("max"):
        return None
    quota, period = text.split()
    return int(quota) / int(period)


def container() -> str | None:
    """The kind of container this process is in ("docker", "podman", "kubernetes"), None outside one."""
    if Path("/.dockerenv").exists():
        return "docker"
    if Path("/run/.containerenv").exists():
        return "podman"
    return "kubernetes" if "KUBERNETES_SERVICE_HOST" in os.environ else None


def emulated() -> str | None:
    """By what this process is emulated ("qemu-aarch64-static"), so that its times mean nothing; None: no sign of it."""
    commands = ["/proc/thread-self/cmdline", f"/proc/{os.getppid()}/cmdline", "/proc/1/cmdline"]
    return emulation(processor(), platform.machine(), [_read(path) for path in commands])


def emulation(cpu: Processor, architecture: str, commands: list[str | None]) -> str | None:
    """A hint that this process runs under user-mode emulation, where a latency means nothing; None: no sign of it.

    cpu: what `/proc/cpuinfo` shows (older QEMU shows the host's). architecture: as `uname -m` says.
    commands: command lines in which QEMU does not hide itself: of other processes, and of this one by its thread, for
    what it hides is `/proc/self` alone (linux-user/syscall.c, is_proc_myself).
    """
    claimed = "arm" if architecture.startswith(("aarch64", "arm")) else "x86"
    other = f" on a processor of the {cpu.family} family" if cpu.family not in (None, claimed) else ""
    for command in commands:
        program = Path((command or "").split("\0")[0]).name
        if program.startswith(_QEMU_USER):
            return f"{program}{other}"
    if "VirtualApple" in cpu.model:
        return "Rosetta"
    return f"{architecture}{other}" if other else None


def _frequency_mhz(which: str) -> float | None:
    text = _read(f"/sys/devices/system/cpu/cpu0/cpufreq/scaling_{which}_freq")
    return int(text) / 1000 if text and text.isdigit() else None


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip().rstrip("\0")
    except OSError:
        return None
