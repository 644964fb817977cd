"""Latencies of several programs, measured beside each other: a process each, of which one works at a time.

The speed of a machine drifts within seconds by more than engines differ. So all sides are opened first, and then
called in short blocks whose order is drawn anew for each round: what slows one block slows its neighbours alike.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from kdeploy.bench.statistics import percentile_estimate

Call = Callable[[], Any]
WARM_UP_CALLS = 20
_BOOTSTRAPS = 2000


@dataclass
class Side:
    """One program. blocks: the milliseconds of each call, an array for each round."""

    name: str
    blocks: list[np.ndarray] = field(default_factory=list)

    def p50(self) -> float:
        return float(np.median(np.concatenate(self.blocks)))

    def p99(self) -> float | None:
        """MLPerf's early-stopping estimate, None below 662 calls."""
        found = percentile_estimate(np.sort(np.concatenate(self.blocks)), 0.99)
        return None if found is None else found.value_ms


def measure(openers: Mapping[str, Callable[[], Call]], *, rounds: int, block_s: float, seed: int = 0) -> list[Side]:
    """Time each side's call for `rounds` blocks of about `block_s` seconds.

    openers: by name, a picklable function that opens the program in its process and gives the call to time. It is run
    on one core, the last one that this process may use.
    """
    core = max(os.sched_getaffinity(0))
    sides = [Side(name) for name in openers]
    with ExitStack() as stack:
        ends = {name: stack.enter_context(_child(opener, core, block_s)) for name, opener in openers.items()}
        order = random.Random(seed)
        for _ in range(rounds):
            for side in order.sample(sides, len(sides)):
                ends[side.name].send(True)
                side.blocks.append(ends[side.name].recv())
    return sides


def ratio(one: Side, other: Side, seed: int = 0) -> tuple[float, float, float]:
    """How many times as fast `other` is as `one`, by their medians, with a 95 % bootstrap interval over rounds."""
    generator = np.random.default_rng(seed)
    medians = np.array([[np.median(block) for block in side.blocks] for side in (one, other)])
    drawn = generator.integers(0, medians.shape[1], (_BOOTSTRAPS, medians.shape[1]))
    ratios = np.median(medians[0][drawn], axis=1) / np.median(medians[1][drawn], axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return one.p50() / other.p50(), float(low), float(high)


@contextmanager
def _child(opener: Callable[[], Call], core: int, block_s: float) -> Iterator[Connection]:
    """A process that answers each message with the samples of a block; our end of the pipe, once it is warm."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, opener, core, block_s), daemon=True)
    process.start()
    theirs.close()
    try:
        ours.recv()
        yield ours
    finally:
        ours.close()
        process.join()


def _serve(end: Connection, opener: Callable[[], Call], core: int, block_s: float) -> None:
    os.sched_setaffinity(0, {core})
    call = opener()
    took = [_timed(call) for _ in range(WARM_UP_CALLS)]
    count = max(3, round(block_s / float(np.median(took)) * 1000))
    end.send(True)
    try:
        while end.recv():
            end.send(np.array([_timed(call) for _ in range(count)]))
    except EOFError:
        return


def _timed(call: Call) -> float:
    """Milliseconds of one call."""
    started = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - started) / 1e6
