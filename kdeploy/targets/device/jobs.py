"""Jobs in the folder: laid out, started, and what they leave."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from kdeploy.targets.device.base import CHUNK, Refused, inside
from kdeploy.targets.device.store import Store
from kdeploy.targets.device.watching import JOB, PATIENCE_S, end_job, is_watched, touch

_PROGRAM = "agent.py"
"""In a job's folder: this very program, as it was sent, for the process that watches."""


class Jobs:
    """The jobs of a device; one at a time. program: what was sent, whole."""

    def __init__(self, store: Store, program: bytes) -> None:
        self._store, self._program = store, program

    def folder(self, name: str) -> Path:
        """Where a job lies. Raises Refused for what is no name of one."""
        if not re.match(r"job-\w+$", name):
            raise Refused("outside", path=name)
        return self._store.folder / name

    def start(
        self,
        name: str,
        command: List[str],
        files: Dict[str, str],
        environment: Dict[str, str],
        lease_s: float,
    ) -> None:
        """Lay the files out in a new job's folder, run the command there, and have it watched.

        A job that is at work by this name stays: the answer to an earlier request was lost with its connection.
        """
        folder = self.folder(name)
        self._store.make()
        with self._store.alone():
            if folder.exists() and is_watched(folder):
                return
            self.require_idle()
            for left in self._all():  # by a power cut, say
                end_job(left)
            folder.mkdir()
            try:
                self._lay_out(folder, command, files, environment, lease_s)
                self._have_watched(folder)
            except BaseException:
                shutil.rmtree(str(folder), ignore_errors=True)
                raise

    def end(self, name: str) -> None:
        """End a job at once; nothing of it is left when this returns."""
        folder = self.folder(name)
        try:
            (folder / "beat").unlink()  # needs no room on the disk, as a new file would
        except FileNotFoundError:
            pass
        until = time.monotonic() + 2 * PATIENCE_S
        while folder.exists() and time.monotonic() < until:
            time.sleep(0.05)
        if folder.exists():  # whoever watched it is gone
            end_job(folder)

    def end_all(self) -> None:
        for folder in self._all():
            self.end(folder.name)

    def results(self, name: str, outputs: List[str]) -> Dict[str, Any]:
        """The files of these paths with their hashes and sizes, and what was printed. Raises Refused without a job."""
        work = self.folder(name) / "work"
        if not work.is_dir():
            raise Refused("gone")
        found = {}
        for output in outputs:
            for path in _files(work / inside(output)):
                found[str(path.relative_to(work))] = [_sha256(path), path.stat().st_size]
                touch(work.parent)
        return {"files": found, "stdout": (work.parent / "stdout").read_bytes().decode(errors="replace")}

    def require_idle(self) -> None:
        """Raise Refused where a job is at work."""
        since_s = self.busy_s()
        if since_s is not None:
            raise Refused("busy", since_s=since_s)

    def busy_s(self) -> Optional[float]:
        """For how long a job has been at work; None: there is none."""
        for folder in self._all():
            if is_watched(folder):
                try:
                    return max(0.0, time.time() - (folder / _PROGRAM).stat().st_mtime)
                except FileNotFoundError:
                    continue
        return None

    def _all(self) -> List[Path]:
        return sorted(self._store.folder.glob("job-*"))

    def _lay_out(
        self, job: Path, command: List[str], files: Dict[str, str], environment: Dict[str, str], lease_s: float
    ) -> None:
        for folder in ("work", "tmp"):
            (job / folder).mkdir()
        for path, digest in files.items():
            target = job / "work" / inside(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            self._store.link(digest, target)
        cache = self._store.folder / "cache"
        own = {
            JOB: job.name,
            "TMPDIR": str(job / "tmp"),
            "XDG_CACHE_HOME": str(cache),
            "KDEPLOY_CACHE": str(cache / "kdeploy"),
            "CUDA_CACHE_PATH": str(cache / "cuda"),
            "KDEPLOY_EVENTS": str(job / "events"),
        }
        asked = {"command": command, "environment": {**environment, **own}, "lease_s": lease_s}
        (job / _PROGRAM).write_bytes(self._program)
        (job / "job.json").write_text(json.dumps(asked))
        (job / "beat").touch()

    def _have_watched(self, job: Path) -> None:
        """Start the process that runs the job and outlives us."""
        subprocess.Popen(
            [sys.executable, str(job / _PROGRAM), str(job)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )


def _files(path: Path) -> List[Path]:
    if path.is_file():
        return [path]
    return sorted(found for found in path.rglob("*") if found.is_file() and not found.is_symlink())


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for chunk in iter(lambda: stream.read(CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()
