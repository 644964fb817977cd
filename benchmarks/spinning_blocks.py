"""`python benchmarks/spinning_blocks.py JOB.json`: a process of a comparison whose calls are slower by a known time.

As `kdeploy.bench.blocks`, but an artefact named `network+2300ns.onnx` spins for 2,300 ns after each call. For
`harness_calibration.py`, which wants to know whether 1 % is found.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any

from kdeploy import artifacts
from kdeploy.bench import blocks
from kdeploy.bench.job import BlocksJob
from kdeploy.bench.timing import Run


def added_ns(artifact: Path) -> int:
    """What the name says, 0 where it says nothing."""
    found = re.search(r"\+(\d+)ns$", artifact.stem)
    return int(found[1]) if found else 0


def slowed(run: Run, by_ns: int) -> Run:
    """`run`, and then so many nanoseconds of looking at the clock.

    The wrapper itself takes some 200 ns, two looks at the clock among them, and so both sides have it.
    """

    def both(images: Any) -> None:
        run(images)
        until = time.perf_counter_ns() + by_ns
        while time.perf_counter_ns() < until:
            pass

    return both


def main(job_path: Path) -> None:
    by_ns = added_ns(Path(BlocksJob.model_validate(artifacts.read_json(job_path)).artifact))
    blocks.main(job_path, wrap=lambda run: slowed(run, by_ns))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
