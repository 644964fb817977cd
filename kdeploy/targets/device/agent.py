"""Answers the other side's requests, each a method `do_…`, and tells what a job says."""

import importlib.util
import json
import os
import platform
import struct
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from kdeploy.targets.device.base import CHUNK, NO_ROOM, Refused, inside, read_json
from kdeploy.targets.device.environment import Environment
from kdeploy.targets.device.jobs import Jobs
from kdeploy.targets.device.store import Store
from kdeploy.targets.device.watching import LOOK_S, end_job, is_watched, touch
from kdeploy.targets.device.wire import IDLE_S, Wire

_WATCHED_S = 5.0
"""How often it is looked whether somebody still watches the job."""


class Agent:
    """One connection's worth of requests."""

    def __init__(self, program: bytes) -> None:
        self._program = program
        self._wire = Wire()
        self._followed: Optional[Path] = None
        self._positions = {"events": 0, "stderr": 0}
        self._looked_s = time.monotonic()

    def serve(self) -> None:
        """Answer until the other side is gone."""
        while True:
            if self._followed is not None:
                self._tell()
            if not self._wire.has_more(LOOK_S if self._followed else None):
                if self._wire.is_over():
                    return
                continue
            line = self._wire.line()
            if line is None:
                return
            request = json.loads(line.decode())
            number = request.pop("number")
            answer = self._answer(getattr(self, "do_" + request.pop("do")), request)
            self._wire.send({"to": number, **answer})

    def _answer(self, do: Callable[..., Optional[Dict[str, Any]]], request: Dict[str, Any]) -> Dict[str, Any]:
        try:
            return do(**request) or {}
        except Refused as refused:
            return refused.answer
        except BrokenPipeError:  # nobody is there to be told
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                folder = str(self._store.folder)
                return {"error": "disk", "why": error.strerror, "folder": folder, **self._store.room()}
            return {"error": "bug", "said": traceback.format_exc()}

    # What the device is, and what it keeps

    def do_hello(self, own: bool) -> Dict[str, Any]:
        """What this machine is; the first request. own: see `Environment`."""
        self._store = Store()
        self._jobs = Jobs(self._store, self._program)
        self._environment = Environment(self._store, self._wire.run, own)
        return {
            "architecture": platform.machine(),
            "bits": 8 * struct.calcsize("P"),
            "python": list(sys.version_info[:3]),
            "libc": platform.libc_ver()[1],
            "folder": str(self._store.folder),
            "environment": self._environment.exists(),
            "tensorrt": importlib.util.find_spec("tensorrt") is not None,
            "in_home": self._store.folder.parent == Path(os.path.expanduser("~")),
            "busy_s": self._jobs.busy_s(),
            "state": read_json(self._store.folder / "state.json"),
            **self._store.room(),
        }

    def do_missing(self, files: List[str]) -> Dict[str, Any]:
        """Which of these files are not here yet."""
        return {"missing": self._store.missing(files)}

    def do_put(self, sha256: str, size: int) -> None:
        """Keep the bytes that follow, if they have this hash."""
        self._store.keep(sha256, self._wire.chunks(size))

    def do_forget(self, files: List[str]) -> None:
        """Keep these files no longer."""
        self._store.forget(files)

    def do_state(self, state: Dict[str, Any]) -> None:
        """Remember something for later connections."""
        self._store.make()
        (self._store.folder / "state.json").write_text(json.dumps(state))

    def do_clean(self) -> Dict[str, Any]:
        """End every job and remove the folder."""
        self._jobs.end_all()
        return self._store.remove()

    # Its environment

    def do_venv(self, system_packages: bool) -> None:
        """Make the environment anew."""
        self._jobs.require_idle()
        self._environment.make(system_packages)

    def do_pip(self, pip: str, arguments: List[str], wheels: Dict[str, str]) -> Dict[str, Any]:
        """Install in the environment; see `Environment.pip`."""
        return self._environment.pip(pip, arguments, wheels)

    def do_code(self, wheel: str) -> None:
        """Have the kdeploy of this wheel in the environment."""
        if self._environment.needs_code(wheel):
            self._jobs.require_idle()  # what runs would lose its code
            self._environment.put_code(wheel)

    def do_ask(self, program: str) -> Dict[str, Any]:
        """Run a few lines in the environment and pass on the JSON that they print."""
        return {"found": self._environment.ask(program)}

    # Its jobs

    def do_start(
        self, job: str, words: List[str], files: Dict[str, str], environment: Dict[str, str], lease_s: float
    ) -> None:
        """Run `python -m kdeploy WORDS` in a new job's folder, with these files.

        The other side names the job, so that it can end it, or ask again, when the connection drops before the answer.
        """
        command = [self._environment.python, "-m", "kdeploy", *words]
        self._jobs.start(job, command, files, environment, lease_s)

    def do_follow(self, job: str, events: int, stderr: int, patience_s: float) -> None:
        """From now on tell what a job says, each from a position in bytes on, and how it ended.

        patience_s: who follows sends signs of life, and is gone when none came for so long.
        """
        folder = self._jobs.folder(job)
        if not folder.is_dir():
            raise Refused("gone")
        self._wire.patience_s = patience_s
        self._positions = {"events": events, "stderr": stderr}
        self._followed = folder

    def do_beat(self) -> None:
        """A sign of life for the job that is followed."""
        if self._followed is not None:
            touch(self._followed)

    def do_cancel(self, job: str) -> None:
        """End a job at once; answers when nothing of it is left."""
        self._unfollow()
        self._jobs.end(job)

    def do_results(self, job: str, outputs: List[str]) -> Dict[str, Any]:
        """The files of these paths, and what was printed, with their hashes."""
        return self._jobs.results(job, outputs)

    def do_get(self, job: str, path: str) -> None:
        """Send a file of a job before the answer; what goes through is a sign of life."""
        folder = self._jobs.folder(job)
        self._wire.send_file(folder / "work" / inside(path), lambda: touch(folder))

    # What a job says

    def _tell(self) -> None:
        """Send what is new of the followed job, and its end."""
        job = self._followed
        assert job is not None
        ended = (job / "status").exists() or not job.exists()  # looked at first: what is written after is read next
        lost = not ended and self._is_lost(job)
        for name in ("events", "stderr"):
            while self._tell_more(job, name, to_the_end=ended or lost):
                pass
        if lost:
            end_job(job)
        if ended or lost:
            self._unfollow()
            status = read_json(job / "status") or {"status": None, **self._store.room()}
            self._wire.send({"ended": True, **status})

    def _tell_more(self, job: Path, name: str, *, to_the_end: bool) -> bool:
        """Send the next lines of a file; whether there were any."""
        try:
            with (job / name).open("rb") as stream:
                behind = os.fstat(stream.fileno()).st_size - self._positions[name]
                if name == "stderr" and behind > CHUNK:  # of so much, the end is what tells
                    self._positions[name] += behind - CHUNK
                stream.seek(self._positions[name])
                new = stream.read(CHUNK)
        except FileNotFoundError:
            return False
        if name == "events" or not to_the_end:
            new = new[: new.rfind(b"\n") + 1]
        if new:
            self._positions[name] += len(new)
            told = {"new": name, "position": self._positions[name], "text": new.decode(errors="replace")}
            self._wire.send(told)
        return bool(new)

    def _is_lost(self, job: Path) -> bool:
        """Whether nobody watches the job any more, as where a system ends all of a user's processes at once."""
        if time.monotonic() - self._looked_s < _WATCHED_S:
            return False
        self._looked_s = time.monotonic()
        return not is_watched(job) and job.exists() and not (job / "status").exists()

    def _unfollow(self) -> None:
        self._followed = None
        self._wire.patience_s = IDLE_S


def main(program: bytes, greeting: str) -> None:
    """Serve the other side, once it knows where our first message begins. program: all of this, as it was sent."""
    agent = Agent(program)
    try:
        os.write(1, greeting.encode() + b"\n")
        agent.serve()
    except BrokenPipeError:
        pass  # the other side is gone
