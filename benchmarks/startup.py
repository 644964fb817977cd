"""CPU time of `kdeploy --help`: user and system seconds of the process, median over some runs.

    python benchmarks/startup.py [RUNS]

The aim is under 0.3 s. One run before the first counted one warms the file cache and the bytecode.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

from kdeploy import machine

AIM_S = 0.3


def cpu_seconds(command: list[str]) -> float:
    """User and system time of one run, from the kernel's account of the finished child."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main(runs: int) -> None:
    command = [str(Path(sys.executable).with_name("kdeploy")), "--help"]
    cpu_seconds(command)
    samples = sorted(cpu_seconds(command) for _ in range(runs))
    median = statistics.median(samples)
    verdict = "held" if median < AIM_S else "missed"
    print(f"kdeploy --help: {median:.3f} s of CPU, median of {runs} runs ({samples[0]:.3f} to {samples[-1]:.3f})")
    print(f"aim: under {AIM_S} s, {verdict}")
    print(json.dumps(machine.fingerprint()))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 21)
