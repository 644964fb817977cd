"""What accuracy is bought with: latency, bytes on disk, memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kdeploy.report import figures
from kdeploy.report.rows import Row


@dataclass(frozen=True)
class Unit:
    """What an axis counts in."""

    name: str
    size: float


@dataclass(frozen=True)
class Cost:
    """A figure of a row of which less is better."""

    name: str
    """As in "accuracy against latency"."""
    label: str
    """Of its axis, without the unit."""
    field: str
    """Its name in `Row`, with the unit."""
    text: Callable[[float], str]
    unit_for: Callable[[Sequence[float]], Unit]
    """The unit in which these values are round on an axis."""

    def of(self, row: Row) -> float | None:
        """The row's value; None: not measured."""
        value: float | None = getattr(row, self.field)
        return value


_KIB, _MIB, _GIB = (Unit(name, 1024.0**power) for name, power in (("KiB", 1), ("MiB", 2), ("GiB", 3)))


def _bytes(values: Sequence[float]) -> Unit:
    most = max(values)
    return next((unit for unit in (_GIB, _MIB) if most >= unit.size), _KIB)


LATENCY = Cost(
    "latency",
    "median latency of one image",
    "p50_ms",
    lambda value: f"{figures.milliseconds(value)} ms",
    lambda values: Unit("ms", 1.0),
)
SIZE = Cost("size", "size on disk, all files of the engine", "size_bytes", figures.size, _bytes)
MEMORY = Cost("memory", "peak memory of a process that only runs it", "memory_bytes", figures.size, _bytes)
COSTS = (LATENCY, SIZE, MEMORY)
