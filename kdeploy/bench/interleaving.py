"""Several artefacts called in turns: fresh processes of each stay alive, and only one of them works at a time."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdeploy import artifacts, events
from kdeploy.bench.emulation import require_real
from kdeploy.bench.job import BlocksJob
from kdeploy.bench.measure import located
from kdeploy.bench.pinning import thread_environment
from kdeploy.children import child_process
from kdeploy.errors import UserError
from kdeploy.machine import free_memory_bytes

PROCESSES = 8
"""Of each side: processes of one engine differ by 0.2 to 0.35 %, which hides a difference of 1 % from fewer."""
_PROGRAM = ("-m", "kdeploy.bench.blocks")
_LEAST_PROCESSES = 2
_LEAST_ROUNDS = 10


def processes_that_fit(peak_bytes: Mapping[str, int | None], wanted: int = PROCESSES) -> int:
    """How many processes of each side fit into half of the memory that is free; `peak_bytes` is what one takes.

    Raises UserError where not even two do.
    """
    one_of_each = sum(peak or 0 for peak in peak_bytes.values())
    free = free_memory_bytes()
    fitting = wanted if one_of_each == 0 else int(free / 2 / one_of_each)
    if fitting < _LEAST_PROCESSES:
        raise UserError(
            f"A comparison keeps two processes of each side in memory, {2 * one_of_each >> 20} MiB in all, and "
            f"{free >> 20} MiB are free: compare fewer at a time, or measure them one by one."
        )
    if fitting < wanted:
        events.decided("processes", f"{fitting} of each side", f"{wanted} would not fit into half the free memory")
    return min(wanted, fitting)


def interleave(
    paths: Mapping[str, Path],
    *,
    threads: int,
    processes: int,
    seconds: float,
    seed: int = 0,
    program: Sequence[str] = _PROGRAM,
) -> tuple[dict[str, NDArray[np.float64]], dict[str, int], float]:
    """Call the artefacts in short blocks of random order for about `seconds`.

    Returns the medians of the blocks by side, `[processes, rounds]` in milliseconds, the calls of a block by side, and
    how long it took. Each round has one block of every process. program: what a process runs, for Python's command
    line. Raises UserError where a process is killed, Unavailable where the processor is emulated.
    """
    require_real("Which is faster")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kdeploy-bench-")))
        opened = {name: stack.enter_context(located(path)).resolve() for name, path in paths.items()}
        children = {
            (name, number): stack.enter_context(
                _child(program, artifact, threads, folder / f"{place}-{number}.json", name)
            )
            for place, (name, artifact) in enumerate(opened.items())
            for number in range(processes)
        }
        with events.task("compare", total=100) as bar:
            for child in children.values():
                child.hear()
            calls = _warmed(children)
            began = time.monotonic()
            rounds = _rounds(children, calls, began + seconds, bar, random.Random(seed))
            took = time.monotonic() - began
    medians = {name: np.array([[one[name, number] for one in rounds] for number in range(processes)]) for name in paths}
    return medians, calls, took


class _Child:
    """Our end of a process that makes blocks."""

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        self._process, self._name = process, name

    def hear(self) -> dict[str, Any]:
        """Its next line; waiting for it takes no processor time."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            raise UserError(
                f"A process that ran {self._name} ended with status {status} in the middle of the comparison; memory "
                "may have run out. Compare fewer at a time."
            )
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, words: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{words}\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # what it died of is said where its answer is missing
            pass
        return self.hear()


_Children = Mapping[tuple[str, int], _Child]


def _warmed(children: _Children) -> dict[str, int]:
    """Warm each up in turn; the calls of a block are those of the side's slowest process."""
    calls: dict[str, int] = {}
    for (name, _), child in children.items():
        count = child.ask("warm")["calls"]
        calls[name] = min(count, calls.get(name, count))
    return calls


def _rounds(
    children: _Children, calls: Mapping[str, int], until: float, bar: events.Progress, order: random.Random
) -> list[dict[tuple[str, int], float]]:
    made: list[dict[tuple[str, int], float]] = []
    began, shown = time.monotonic(), 0
    while len(made) < _LEAST_ROUNDS or time.monotonic() < until:
        turns = order.sample(list(children), len(children))
        made.append({key: children[key].ask(str(calls[key[0]]))["median_ms"] for key in turns})
        done = min(100, int(100 * (time.monotonic() - began) / (until - began)))
        bar.advance(done - shown)
        shown = done
    return made


@contextmanager
def _child(program: Sequence[str], artifact: Path, threads: int, job: Path, name: str) -> Iterator[_Child]:
    artifacts.write_json(job, BlocksJob(artifact=str(artifact), threads=threads).model_dump(mode="json"))
    with child_process(
        [sys.executable, *program, str(job)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **thread_environment(threads)},
    ) as process:
        yield _Child(process, name)
