"""Latency as `trtexec` measures it, with the settings that it was measured under.

The same `trtexec` command means other things in 10 and in 11: 10 times the copies to and from the device, waits for an
interrupt and launches each kernel by itself; 11 leaves the copies out, spins, and launches a CUDA graph. So the
settings are always spelt out, kept beside the samples, and two measurements are compared only where they are the same.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from kdeploy.engines.tensorrt import trtexec, versions
from kdeploy.engines.tensorrt.graph import Input
from kdeploy.engines.tensorrt.versions import Version
from kdeploy.errors import UserError


class Settings(BaseModel):
    """What counts as latency. copies: to and from the device; spin_wait: the host burns a core while it waits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    copies: bool = True
    cuda_graph: bool = False
    spin_wait: bool = False


class Measured(BaseModel):
    """Latencies in milliseconds, in the order in which they were taken, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool: str
    """trtexec and its version."""
    settings: Settings
    machine: dict[str, str | None]
    batch: int
    warm_up_ms: int
    samples_ms: tuple[float, ...]


def defaults(version: Version) -> Settings:
    """What this version's `trtexec` does when nothing is said."""
    changed = version >= (11,)
    return Settings(copies=not changed, cuda_graph=changed, spin_wait=changed)


def flags(settings: Settings, version: Version) -> list[str]:
    """The options that bring about these settings in this version."""
    if version >= (11,):
        wanted = {
            "--includeDataTransfers": settings.copies,
            "--noCudaGraph": not settings.cuda_graph,
            "--noSpinWait": not settings.spin_wait,
        }
    else:
        wanted = {
            "--noDataTransfers": not settings.copies,
            "--useCudaGraph": settings.cuda_graph,
            "--useSpinWait": settings.spin_wait,
        }
    return [name for name, on in wanted.items() if on]


def measure(
    tool: trtexec.Trtexec,
    plan: Path,
    taken: Input,
    *,
    batch: int = 1,
    settings: Settings | None = None,
    duration_s: int = 10,
    warm_up_ms: int = 1000,
    extra: Sequence[str] = (),
) -> Measured:
    """Time the plan through `trtexec`, on random inputs. taken: the graph's input. extra: such as `--useDLACore=0`.

    Raises UserError where `trtexec` fails.
    """
    wanted = settings or Settings()
    with tempfile.TemporaryDirectory() as folder:
        times = Path(folder) / "times.json"
        arguments = [f"--loadEngine={plan}", f"--exportTimes={times}", f"--duration={duration_s}"]
        arguments += [f"--warmUp={warm_up_ms}", *flags(wanted, tool.version), *extra]
        if None in taken.sizes:
            arguments.append(f"--shapes={trtexec.shape_of(taken.name, (batch, *taken.sizes[1:]))}")
        log = trtexec.run(tool, trtexec.checked(arguments, tool.version), what=f"time {plan}")
        taken_at: list[dict[str, Any]] = json.loads(times.read_text(encoding="utf-8"))
    version = versions.show(tool.version)
    return Measured(
        tool=f"trtexec {version}",
        settings=wanted,
        machine=trtexec.device(log, version),
        batch=batch,
        warm_up_ms=warm_up_ms,
        samples_ms=tuple(float(sample["latencyMs"]) for sample in taken_at),
    )


def require_comparable(one: Measured, other: Measured) -> None:
    """Raise UserError where two measurements were taken under other settings or batches."""
    if (one.settings, one.batch) != (other.settings, other.batch):
        raise UserError(
            f"{one.tool} ({_shown(one)}) and {other.tool} ({_shown(other)}) measured different things; "
            "measure both with the same settings."
        )


def _shown(measured: Measured) -> str:
    words = [name.replace("_", " ") for name, on in measured.settings if on]
    return f"batch {measured.batch}, " + (", ".join(words) or "kernels alone")
