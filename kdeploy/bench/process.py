"""The parent's side of a measurement: start the child, sleep, pass on what it says, and make sure that it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kdeploy import artifacts, errors, events
from kdeploy.bench.job import Failure, Fresh, FreshJob, Job, Outcome
from kdeploy.bench.pinning import thread_environment
from kdeploy.bench.record import Record
from kdeploy.bench.results import Memory
from kdeploy.children import child_process
from kdeploy.errors import KdeployError, UserError

_EVENTS: dict[str, Callable[..., None]] = {"decided": events.decided, "warn": events.warn, "say": events.say}
_STEPS = 100


def run_job(job: Job, folder: Path, name: str) -> Outcome:
    """Do `job` in a fresh process, with its files in `folder`; see `run_child`."""
    content = run_child("kdeploy.bench.child", job, Path(job.outcome), folder, threads=job.bench.threads, name=name)
    return Outcome.model_validate(content)


def run_child(module: str, job: Record, outcome: Path, folder: Path, *, threads: int, name: str) -> dict[str, Any]:
    """Run `python -m MODULE JOB.json` and return what it wrote to `outcome`; `name` is what messages call the artefact.

    The parent blocks on the child's lines and uses no processor time. Whatever ends the parent's wait, Ctrl-C among
    it, ends the child too. Raises what the child raised where the user can act on it, UserError where the child was
    killed, and RuntimeError with the child's traceback where it is a bug.
    """
    artifacts.write_json(folder / "job.json", job.model_dump(mode="json"))
    with (folder / "stderr.txt").open("w+", encoding="utf-8", errors="replace") as stderr:
        with child_process(
            [sys.executable, "-m", module, str(folder / "job.json")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, **thread_environment(threads)},
        ) as child:
            _follow(child, name)
            status = child.wait()
        if status != 0:
            stderr.seek(0)
            raise _death(status, name, stderr.read())
    content: dict[str, Any] = artifacts.read_json(outcome)
    if "kind" in content:
        raise _error(Failure.model_validate(content))
    return content


def run_fresh(artifact: Path, folder: Path, threads: int, name: str) -> tuple[float | None, Memory | None]:
    """Start two fresh processes, with their files in `folder`: one that imports the runtime, one that also runs it.

    Returns the milliseconds from the start of the second to its first answer, and the memory of both; None where the
    kernel does not tell it. Raises UserError where a process was killed; any other error is a bug, for the artefact
    was opened before.
    """
    asked = partial(FreshJob, artifact=str(artifact), threads=threads)
    idle, _ = _fresh(asked(run=False, outcome=str(folder / "idle.json")), name)
    found, began_ns = _fresh(asked(run=True, outcome=str(folder / "fresh.json")), name)
    memory = None
    if found.peak_bytes is not None and idle.peak_bytes is not None:
        memory = Memory(peak_bytes=found.peak_bytes, runtime_bytes=idle.peak_bytes, gpu_bytes=found.gpu_bytes)
    answered_ns = found.answered_at_ns
    return None if answered_ns is None else (answered_ns - began_ns) / 1e6, memory


def _fresh(job: FreshJob, name: str) -> tuple[Fresh, int]:
    """What the process found, and when it was started."""
    path = Path(job.outcome).with_suffix(".job.json")
    artifacts.write_json(path, job.model_dump(mode="json"))
    command = [sys.executable, "-m", "kdeploy.bench.fresh", str(path)]
    began_ns = time.monotonic_ns()
    ended = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, **thread_environment(job.threads)},
        encoding="utf-8",
        errors="replace",
    )
    if ended.returncode != 0:
        raise _death(ended.returncode, name, ended.stderr)
    return Fresh.model_validate(artifacts.read_json(Path(job.outcome))), began_ns


def _follow(child: subprocess.Popen[str], name: str) -> None:
    assert child.stdout is not None
    with events.task(f"measure {name}", _STEPS) as bar:
        shown = 0
        for text in child.stdout:
            line = json.loads(text)
            if "event" in line:
                _EVENTS[line["event"]](*line["arguments"])
                continue
            done = int(line["done"] * _STEPS)
            bar.advance(done - shown)
            shown = done


def _error(failure: Failure) -> KdeployError:
    kind = getattr(errors, failure.kind, None)
    if isinstance(kind, type) and issubclass(kind, KdeployError):
        return kind(failure.message)
    raise RuntimeError(f"{failure.kind}: {failure.message}")


def _death(status: int, name: str, stderr: str) -> Exception:
    if status > 0:
        return RuntimeError(f"the process that measured {name} failed with status {status}:\n{stderr}")
    cause = signal.Signals(-status).name
    if cause == "SIGKILL":
        why = "memory most likely ran out; try a smaller batch"
    elif cause == "SIGILL":
        why = "the engine uses an instruction that this processor does not have; build it on this machine"
    else:
        why = "the runtime crashed on this artefact; build it again, or try another version of the runtime"
    return UserError(f"The process that measured {name} was ended by {cause}: {why}.")
