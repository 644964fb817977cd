"""What happens in a timed run: when each query was scheduled, issued and answered, and a sample of the outputs."""

from __future__ import annotations

import math
import random
from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOGGED = 64
"""Outputs that are kept of a run."""


class OutputLog:
    """A uniform random sample, of fixed size, of the outputs of a run whose length nobody knows.

    Reservoir sampling by Algorithm L (Li, ACM TOMS 20(4), 1994): it draws how many outputs to skip, so that a query
    that is not kept costs one comparison, `count == log.next`.
    """

    def __init__(self, size: int = LOGGED, seed: int = 0) -> None:
        self.kept: list[tuple[int, NDArray[Any]]] = []
        """The number of the input, and a copy of what came out."""
        self.next = 0
        """The query whose output is kept next, counted from 0."""
        self._size = size
        self._random = random.Random(seed)
        self._threshold = 1.0

    def keep(self, number: int, output: NDArray[Any]) -> None:
        """Keep the output of query `next`, whose input has this number."""
        entry = (number, np.array(output))
        if len(self.kept) < self._size:
            self.kept.append(entry)
        else:
            self.kept[self._random.randrange(self._size)] = entry
        if len(self.kept) < self._size:
            self.next += 1
            return
        self._threshold *= math.exp(math.log(self._above_zero()) / self._size)
        self.next += math.floor(math.log(self._above_zero()) / math.log1p(-self._threshold)) + 1

    def _above_zero(self) -> float:
        return 1.0 - self._random.random()


@dataclass(frozen=True)
class Timeline:
    """The queries that were answered, in order; int64 `[count]`, nanoseconds since the run's begin."""

    scheduled_ns: NDArray[np.int64]
    issued_ns: NDArray[np.int64]
    answered_ns: NDArray[np.int64]
    log: OutputLog
    broken_off: bool = False
    """The run was given up, because it could not succeed any more."""

    @property
    def latency_ns(self) -> NDArray[np.int64]:
        """From the scheduled time to the answer: a query that has to wait for a stalled engine is seen to wait."""
        return self.answered_ns - self.scheduled_ns

    @property
    def duration_s(self) -> float:
        """From the begin to the last answer; 0 of a run without any."""
        return float(self.answered_ns[-1]) / 1e9 if len(self.answered_ns) else 0.0


def since(begin: int, times: array[int]) -> NDArray[np.int64]:
    """Points in time, relative to the run's begin."""
    return np.array(times, dtype=np.int64) - begin
