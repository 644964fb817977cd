"""`python -m kdeploy.bench.fresh JOB.json`: a process that opens an engine, runs it once, and says what that took.

Nothing else happens in it, so that its memory is the engine's: no data, no samples, no statistics.
"""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

from kdeploy import artifacts
from kdeploy.bench import pinning
from kdeploy.bench.energy import NotMeasured
from kdeploy.bench.inputs import inputs_for
from kdeploy.bench.job import Fresh, FreshJob
from kdeploy.bench.nvml import gpu_memory_bytes
from kdeploy.bench.opening import open_artifact, require_runtime


def main(job_path: Path) -> None:
    """Do the job and write its outcome. The parent has opened the same artefact before: an error here is a bug."""
    job = FreshJob.model_validate(artifacts.read_json(job_path))
    pinning.pin(job.threads)
    artifact = Path(job.artifact)
    if job.run:
        session, layout, _, _ = open_artifact(artifact, job.threads)
        with session:
            session.run(inputs_for(layout, layout.batch or 1, None, kinds=1)[0])
            answered_at_ns = time.monotonic_ns()
            found = Fresh(answered_at_ns=answered_at_ns, peak_bytes=peak_bytes(), gpu_bytes=_gpu_bytes())
    else:
        require_runtime(artifact)
        found = Fresh(answered_at_ns=None, peak_bytes=peak_bytes(), gpu_bytes=None)
    artifacts.write_json(Path(job.outcome), found.model_dump(mode="json"))


def peak_bytes() -> int | None:
    """The largest resident set of this process since its program was started; None where the kernel does not tell.

    Not `ru_maxrss`, of wait4 or getrusage: Linux keeps it over exec(2), so that a process which a large one started
    seems as large as that (kernel, fs/exec.c, exec_mmap).
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) << 10 if found else None


def _gpu_bytes() -> int | None:
    try:
        return gpu_memory_bytes(os.getpid())
    except NotMeasured:  # no GPU, or a driver that does not tell: the meters of energy say which
        return None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
