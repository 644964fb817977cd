"""`python -m kdeploy.bench.blocks JOB.json`: one process of a comparison; it answers each line with a block's median.

It first says {"calls": N, "median_ms": M} after its warm-up. Then each line on standard input is a number of calls, and
the answer {"median_ms": M}; it ends with its input.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdeploy import artifacts
from kdeploy.bench import pinning
from kdeploy.bench.inputs import inputs_for
from kdeploy.bench.job import BlocksJob
from kdeploy.bench.opening import open_artifact
from kdeploy.bench.telling import sender
from kdeploy.bench.timing import Run
from kdeploy.bench.warming import no_garbage_collection, warm_up

WARM_UP_S = 0.3
_BLOCK_MS = 25.0
_CALLS = (5, 100)
"""The least and the most calls of a block."""


def main(job_path: Path, wrap: Callable[[Run], Run] = lambda run: run) -> None:
    """Open, warm up, and answer. The artefact was measured before: an error here is a bug.

    wrap: what is called instead of the engine, to calibrate the harness with calls that are known to be slower.
    """
    job = BlocksJob.model_validate(artifacts.read_json(job_path))
    send = sender()
    pinning.pin(job.threads)
    session, layout, _, _ = open_artifact(Path(job.artifact), job.threads)
    with session, no_garbage_collection():
        run = wrap(session.run)
        inputs = inputs_for(layout, layout.batch or 1, None)
        send({"opened": True})
        for line in sys.stdin:
            if line.strip() == "warm":
                send({"calls": calls_of_a_block(warm_up(run, inputs, WARM_UP_S).typical_ns / 1e6)})
            else:
                send({"median_ms": block(run, inputs, int(line))})


def calls_of_a_block(typical_ms: float) -> int:
    """As many as 25 ms hold: short against the drift of a machine's speed, long against waking a process up."""
    least, most = _CALLS
    return max(least, min(most, round(_BLOCK_MS / typical_ms)))


def block(run: Run, inputs: Sequence[NDArray[Any]], calls: int) -> float:
    """The median of so many calls, in milliseconds; before them one that is not counted, to fill the caches again."""
    clock = time.perf_counter_ns
    taken = np.empty(calls, dtype=np.int64)
    run(inputs[-1])
    for number in range(calls):
        images = inputs[number % len(inputs)]
        start = clock()
        run(images)
        taken[number] = clock() - start
    return float(np.median(taken)) / 1e6


if __name__ == "__main__":
    main(Path(sys.argv[1]))
