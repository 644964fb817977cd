"""A job is watched by a process of its own, which outlives a connection.

It ends the job when no sign of life has come through for the length of the lease, or when it is asked to.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Dict, Iterator, List, Optional

JOB = "KDEPLOY_JOB"
"""In the environment of all processes of a job, by which they are found."""
PATIENCE_S = 3.0
"""How long a job that is asked to end may take until it is killed."""
LOOK_S = 0.25
_KILLING_S = 30.0
"""What hangs in the kernel, as on a broken disk, can't be killed: it is not waited for longer."""


def watch(job: Path) -> None:
    """Run a job, and remove it when its lease is over or it is asked to end; a process of its own.

    The clock is the monotonic one: a small device without a battery sets its own by hours when it finds a network.
    """
    asked = json.loads((job / "job.json").read_text())
    started = _started(job, asked["command"], asked["environment"])
    seen, at = None, time.monotonic()
    while True:
        beat = _beat(job)
        if beat is None or (beat == seen and time.monotonic() - at > asked["lease_s"]):
            break
        if beat != seen:
            seen, at = beat, time.monotonic()
        if not (job / "status").exists() and (started is None or started.poll() is not None):
            _tell_status(job, 127 if started is None else started.returncode)
        time.sleep(LOOK_S)
    if started is not None and started.poll() is None:
        started.send_signal(signal.SIGTERM)
        try:
            started.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            pass
    end_job(job)
    if started is not None:
        started.wait()


def end_job(job: Path) -> None:
    """Kill what runs of a job, and remove its folder."""
    until = time.monotonic() + _KILLING_S
    while time.monotonic() < until:
        running = list(_processes(job.name))
        if not running:
            break
        for process in running:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.05)
    shutil.rmtree(str(job), ignore_errors=True)


def is_watched(job: Path) -> bool:
    """Whether the process that watches a job is alive."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(str(job)) in entry.read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False


def touch(job: Path) -> None:
    """A sign of life; none where the job is to end."""
    try:
        os.utime(str(job / "beat"))
    except FileNotFoundError:
        pass


def _started(job: Path, command: List[str], environment: Dict[str, str]) -> "Optional[subprocess.Popen[bytes]]":
    """None where it could not be started, which is said as a job would."""
    try:
        with (job / "stdout").open("wb") as out, (job / "stderr").open("wb") as err:
            return subprocess.Popen(
                command,
                cwd=str(job / "work"),
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
    except OSError as error:
        try:
            (job / "stderr").write_text("kdeploy: " + command[0] + " can't be started: " + str(error.strerror) + ".")
        except OSError:
            pass
        return None


def _processes(name: str) -> Iterator[int]:
    """Those that have a job's name in their environment and are not over."""
    mark = (JOB + "=" + name).encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            ended = (entry / "stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
            if not ended and mark in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name)
        except (OSError, IndexError):  # gone, or somebody else's
            continue


def _tell_status(job: Path, status: int) -> None:
    """On a full disk, too: it is written over what is not needed any more."""
    told = json.dumps({"status": status, "free_bytes": shutil.disk_usage(str(job)).free}).encode()
    shutil.rmtree(str(job / "tmp"), ignore_errors=True)
    beside = job / "job.json"
    try:
        with beside.open("r+b") as stream:  # not emptied first: its blocks could go to somebody else
            stream.write(told)
            stream.truncate()
    except OSError:
        pass
    beside.replace(job / "status")


def _beat(job: Path) -> Optional[int]:
    try:
        return (job / "beat").stat().st_mtime_ns
    except FileNotFoundError:
        return None
