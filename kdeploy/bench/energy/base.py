"""The one interface of all meters, and what they give."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Unit = Literal["joules", "watts"]
"""What a meter's readings are: a counter of energy, which only grows, or power at this moment."""


class NotMeasured(Exception):
    """Why there is no figure: one sentence without a full stop, with what to type where that helps.

    It never ends a measurement: it becomes an entry of `Energy.absent`.
    """


class Meter(ABC):
    """One thing whose energy this machine can tell."""

    name: str
    """The source and what it measures: "rapl package-0"."""
    scope: str
    """How much of the machine it sees: package, memory, platform, gpu, module, board, rail, board rails, wall."""
    covers: str
    """The same in words, with what is left out."""
    unit: Unit
    range_joules: float | None = None
    """A counter that starts over: what it counts to. None: it does not."""

    @abstractmethod
    def read(self) -> float:
        """The counter in joules, or the power in watts. Raises NotMeasured."""

    def close(self) -> None:
        """Release what the meter holds."""
        return


@dataclass(frozen=True)
class Found:
    """The meters that can be read, and for each other one, by its name, why not."""

    meters: tuple[Meter, ...] = ()
    absent: Mapping[str, str] = field(default_factory=dict)


class Source(ABC):
    """A kind of meter: one file of `sources/`."""

    name: ClassVar[str]

    @abstractmethod
    def find(self, root: Path) -> Found:
        """Its meters on the machine whose files are under `root`, each read once to be sure. Never raises."""


@dataclass(frozen=True)
class Window:
    """A stretch of time by `time.monotonic_ns`.

    On Linux `time.perf_counter_ns` reads the same clock, CLOCK_MONOTONIC, which all processes share, so a window that
    a child timed holds for the readings of its parent.
    """

    begin_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.begin_ns) / 1e9


@dataclass(frozen=True)
class Trace:
    """Readings of one meter, in order."""

    time_ns: NDArray[np.int64]
    """`[n]`, by `time.monotonic_ns`, strictly ascending."""
    values: NDArray[np.float64]
    """`[n]`, joules or watts."""
    unit: Unit
    range_joules: float | None = None
