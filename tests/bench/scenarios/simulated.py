"""A clock that only moves when something takes time, and an engine that takes as long as it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdeploy.bench.scenarios.base import Load, Settings

MS = 1_000_000


class SimulatedClock:
    """Nanoseconds; begins at an odd time, so that a forgotten origin shows."""

    def __init__(self) -> None:
        self.time = 12_345

    def now(self) -> int:
        return self.time

    def wait_until(self, at: int) -> int:
        self.time = max(self.time, at)
        return self.time


class SimulatedEngine:
    """Doubles its input in `cost_ns(call)` nanoseconds, by the number of the call from 0."""

    def __init__(self, clock: SimulatedClock, cost_ns: Callable[[int], int]) -> None:
        self.clock, self.cost_ns, self.calls = clock, cost_ns, 0
        self.seen: list[float] = []

    def __call__(self, query: NDArray[Any]) -> NDArray[Any]:
        self.clock.time += self.cost_ns(self.calls)
        self.calls += 1
        self.seen.append(float(query.flat[0]))
        return query * 2


def queries(samples: int = 1, kinds: int = 4) -> list[NDArray[np.float32]]:
    """Different ones: the number of the query in all of its values, float32 `[samples, 3]`."""
    return [np.full((samples, 3), kind, np.float32) for kind in range(kinds)]


def load(cost_ns: Callable[[int], int], settings: Settings, *, samples: int = 1, typical_ns: float = MS) -> Load:
    """What a scenario is handed, with a simulated clock and engine."""
    clock = SimulatedClock()
    engine = SimulatedEngine(clock, cost_ns)
    return Load(engine, queries(samples), settings, clock, lambda share: None, warmup_count=40, typical_ns=typical_ns)
