"""Which processor cores a measurement runs on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from kdeploy.errors import UserError
from kdeploy.machine import cores

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_CPUS = Path("/sys/devices/system/cpu")


def thread_environment(threads: int) -> dict[str, str]:
    """The environment variables that hold every library's own thread pool to this many threads."""
    return dict.fromkeys(_THREAD_VARIABLES, str(threads))


def check_threads(threads: int) -> None:
    """Raise UserError where more threads are asked for than this process has cores: they would wait for each other."""
    if threads > cores():
        raise UserError(f"bench.threads is {threads}, but this process may use {cores()} cores here. Ask for fewer.")


def pin(threads: int) -> dict[str, Any]:
    """Keep this process on `threads` cores of its own choice and say which: {"cores": [...]}.

    Where the system does not allow it, nothing is changed, and the answer is {"cores": None, "reason": WHY}.
    """
    chosen = order_cores(os.sched_getaffinity(0))[:threads]
    try:
        os.sched_setaffinity(0, chosen)
    except OSError as error:
        return {"cores": None, "reason": error.strerror or str(error)}
    return {"cores": sorted(chosen)}


def order_cores(allowed: set[int], cpus: Path = _CPUS) -> list[int]:
    """Best first: the fastest kind, one hardware thread of each core before its siblings, the highest number first.

    The lowest number is last because most systems serve their interrupts on core 0.
    """
    return sorted(allowed, key=lambda core: (-_capacity(cpus, core), _rank_among_siblings(cpus, core), -core))


def _capacity(cpus: Path, core: int) -> int:
    """Speed relative to the fastest kind (1024), as arm64 kernels tell it; the same for all where they don't."""
    text = _read(cpus / f"cpu{core}" / "cpu_capacity")
    return int(text) if text.isdigit() else 1024


def _rank_among_siblings(cpus: Path, core: int) -> int:
    text = _read(cpus / f"cpu{core}" / "topology" / "thread_siblings_list")
    siblings: list[int] = []
    for part in text.split(",") if text else []:
        first, _, last = part.partition("-")
        siblings.extend(range(int(first), int(last or first) + 1))
    return siblings.index(core) if core in siblings else 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
