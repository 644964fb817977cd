"""The parent's side of a measurement: start the child, sleep, pass on what it says, and make sure that it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

from kdeploy import artifacts, errors, events
from kdeploy.bench.job import Failure, Job, Outcome
from kdeploy.bench.pinning import thread_environment
from kdeploy.errors import KdeployError, UserError

_EVENTS: dict[str, Callable[..., None]] = {"decided": events.decided, "warn": events.warn, "say": events.say}
_STEPS = 100


def run_job(job: Job, folder: Path, name: str) -> Outcome:
    """Do `job` in a fresh process, with its files in `folder`; `name` is what the messages call the artefact.

    The parent blocks on the child's lines and uses no processor time. Whatever ends the parent's wait, Ctrl-C among
    it, ends the child too. Raises what the child raised where the user can act on it, UserError where the child was
    killed, and RuntimeError with the child's traceback where it is a bug.
    """
    artifacts.write_json(folder / "job.json", job.model_dump(mode="json"))
    with (folder / "stderr.txt").open("w+", encoding="utf-8", errors="replace") as stderr:
        # A session of its own: Ctrl-C reaches the parent alone, which then ends the child.
        child = subprocess.Popen(
            [sys.executable, "-m", "kdeploy.bench.child", str(folder / "job.json")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, **thread_environment(job.bench.threads)},
            start_new_session=True,
            encoding="utf-8",
        )
        try:
            _follow(child, name)
            status = child.wait()
        finally:
            _end(child)
        if status != 0:
            stderr.seek(0)
            raise _death(status, name, stderr)
    content = artifacts.read_json(Path(job.outcome))
    if "kind" in content:
        raise _error(Failure.model_validate(content))
    return Outcome.model_validate(content)


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


def _end(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _error(failure: Failure) -> KdeployError:
    kind = getattr(errors, failure.kind, None)
    if isinstance(kind, type) and issubclass(kind, KdeployError):
        return kind(failure.message)
    raise RuntimeError(f"{failure.kind}: {failure.message}")


def _death(status: int, name: str, stderr: IO[str]) -> Exception:
    if status > 0:
        return RuntimeError(f"the process that measured {name} failed with status {status}:\n{stderr.read()}")
    cause = signal.Signals(-status).name
    if cause == "SIGKILL":
        why = "memory most likely ran out; try a smaller batch"
    elif cause == "SIGILL":
        why = "the engine uses an instruction that this processor does not have; build it on this machine"
    else:
        why = "the runtime crashed on this artefact; build it again, or try another version of the runtime"
    return UserError(f"The process that measured {name} was ended by {cause}: {why}.")
