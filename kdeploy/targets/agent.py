"""What runs on the device: it keeps files, starts one job at a time, and tells how that goes.

This file alone is sent over each connection and run by the device's own Python, before there is a kdeploy; so it needs
nothing but the standard library, and works from Python 3.6 on: a Python that is too old for kdeploy is told so.

It speaks over standard input and output: each message is one line of JSON, followed by `size` bytes where it says so.
Everything it keeps lies in one folder: `files/`, by SHA-256; `venv/`, the environment; `job-*/`, a job at work.

A job is watched by a process of its own, which outlives a connection. It ends the job when no sign of life has come
through for the length of the lease, or when it is asked to.
"""

import errno
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

CHUNK = 1 << 20
FOLDER = ".kdeploy-target"
"""In the home folder; where that cannot be written, as in a read-only container, in the temporary one, by user."""
JOB = "KDEPLOY_JOB"
"""In the environment of all processes of a job, by which they are found."""
PATIENCE_S = 3.0
"""How long a job that is asked to end may take until it is killed."""
LOOK_S = 0.25
ALIVE_S = 2.0
"""How often the other side hears of us while it waits for something that takes long."""
IDLE_S = 1800.0
"""Without a word for so long the other side is gone: a pulled cable ends no connection by itself."""
WATCHED_S = 5.0
"""How often it is looked whether somebody still watches the job."""
KILLING_S = 30.0
"""What hangs in the kernel, as on a broken disk, can't be killed: it is not waited for longer."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)
"""What a disk answers that is full, may not be written, or is broken."""


class Refused(Exception):
    """What cannot be done here: a word for the other side, and details."""

    def __init__(self, kind: str, **details: Any) -> None:
        super().__init__(kind)
        self.answer = {"error": kind, **details}


class Agent:
    """One connection's worth of requests."""

    def __init__(self, source: bytes) -> None:
        self._source = source
        self._input = b""
        self._folder = Path()
        self._python = ""
        self._followed = None  # type: Optional[Path]
        self._positions = {"events": 0, "stderr": 0}
        self._heard_s = self._looked_s = time.monotonic()
        self._patience_s = IDLE_S

    def serve(self) -> None:
        """Answer until the other side is gone."""
        while True:
            if self._followed is not None:
                self._tell()
            if b"\n" not in self._input and not self._readable(LOOK_S if self._followed else self._patience_s):
                if time.monotonic() - self._heard_s > self._patience_s:
                    return
                continue
            line = self._line()
            if line is None:
                return
            request = json.loads(line.decode())
            number = request.pop("number")
            self.send({"to": number, **self._answer(getattr(self, "do_" + request.pop("do")), request)})

    def _answer(self, do: Callable[..., Optional[Dict[str, Any]]], request: Dict[str, Any]) -> Dict[str, Any]:
        try:
            return do(**request) or {}
        except Refused as refused:
            return refused.answer
        except BrokenPipeError:  # nobody is there to be told
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                return {"error": "disk", "why": error.strerror, "folder": str(self._folder), **self._room()}
            return {"error": "bug", "said": traceback.format_exc()}

    def send(self, message: Dict[str, Any]) -> None:
        _write(1, json.dumps(message).encode() + b"\n")

    # Requests

    def do_hello(self, own: bool) -> Dict[str, Any]:
        """What this machine is. own: this Python is the environment, as in a container that has kdeploy."""
        self._folder = _folder()
        self._python = sys.executable if own else str(self._folder / "venv" / "bin" / "python")
        return {
            "architecture": platform.machine(),
            "bits": 8 * struct.calcsize("P"),
            "python": list(sys.version_info[:3]),
            "libc": platform.libc_ver()[1],
            "folder": str(self._folder),
            "environment": own or Path(self._python).exists(),
            "tensorrt": importlib.util.find_spec("tensorrt") is not None,
            "in_home": self._folder.parent == Path(os.path.expanduser("~")),
            "busy_s": self._busy_s(),
            "state": _read_json(self._folder / "state.json"),
            **self._room(),
        }

    def do_missing(self, files: List[str]) -> Dict[str, Any]:
        """Which of these files are not here yet."""
        return {"missing": [digest for digest in files if not self._kept(digest).exists()]}

    def do_put(self, sha256: str, size: int) -> Dict[str, Any]:
        """Keep the bytes that follow, if they have this hash."""
        digest, problem = hashlib.sha256(), None  # type: Any, Optional[OSError]
        target = self._kept(sha256)
        handle, name = None, ""
        try:
            try:
                self._make_folder()
                target.parent.mkdir(exist_ok=True)
                handle, name = tempfile.mkstemp(prefix=".", dir=str(target.parent))
            except OSError as error:
                problem = error
            for chunk in self._chunks(size):  # all bytes are read whatever happens, or the next request could not be
                digest.update(chunk)
                try:
                    if handle is not None and problem is None:
                        _write(handle, chunk)
                except OSError as error:
                    problem = error
            if handle is not None and problem is None and digest.hexdigest() == sha256:
                os.fsync(handle)  # it is never sent again: a power cut must not leave its name without its bytes
                os.chmod(name, 0o444)
                os.replace(name, str(target))
                name = ""
                return {}
        finally:
            if handle is not None:
                os.close(handle)
            if name:
                os.unlink(name)
        if problem is not None:
            raise problem
        raise Refused("damaged")

    def do_forget(self, files: List[str]) -> None:
        """Keep these files no longer."""
        for digest in files:
            if self._kept(digest).exists():
                self._kept(digest).unlink()

    def do_venv(self, system_packages: bool) -> None:
        """Make the environment anew, without pip: ours is brought along."""
        self._require_idle()
        venv = self._folder / "venv"
        shutil.rmtree(str(venv), ignore_errors=True)
        self._make_folder()
        command = [sys.executable, "-m", "venv", "--without-pip", str(venv)]
        command += ["--system-site-packages"] if system_packages else []
        status, said = self._run(command, {})
        if status != 0:
            raise Refused("failed", command=" ".join(command), said=said)

    def do_pip(self, pip: str, arguments: List[str], wheels: Dict[str, str]) -> Dict[str, Any]:
        """Run a pip wheel, that is kept here, in the environment; wheels: names of files and their hashes."""
        with tempfile.TemporaryDirectory(prefix="wheels-", dir=str(self._folder)) as folder:
            for name, digest in wheels.items():
                _link(self._kept(digest), Path(folder) / name)
            carried = ["--no-index", "--find-links", folder] if wheels else []
            beside = Path(folder) / "pip.whl"
            _link(self._kept(pip), beside)
            # Its cache would be left lying outside of our folder, and is of no more use.
            command = [self._python, str(beside / "pip"), "install", "--no-cache-dir", *carried, *arguments]
            status, said = self._run(command, {"TMPDIR": folder, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
        return {"status": status, "said": said}

    def do_code(self, wheel: str) -> None:
        """Have the kdeploy of this wheel in the environment; no pip is needed for pure Python."""
        found = sorted((self._folder / "venv" / "lib").glob("python*/site-packages"))
        if not found:
            raise Refused("broken", said="it has no site-packages")
        packages = found[0]
        mark = packages / "kdeploy.sha256"
        if mark.exists() and mark.read_text() == wheel:
            return
        self._require_idle()  # what runs would lose its code
        if mark.exists():
            mark.unlink()
        for old in [packages / "kdeploy", *packages.glob("kdeploy-*.dist-info")]:
            shutil.rmtree(str(old), ignore_errors=True)
        with zipfile.ZipFile(str(self._kept(wheel))) as archive:
            archive.extractall(str(packages))
        mark.write_text(wheel)

    def do_state(self, state: Dict[str, Any]) -> None:
        """Remember something for later connections."""
        self._make_folder()
        (self._folder / "state.json").write_text(json.dumps(state))

    def do_ask(self, program: str) -> Dict[str, Any]:
        """Run a few lines in the environment and pass on the JSON that they print."""
        status, said = self._run([self._python, "-c", program], {})
        for line in reversed(said.splitlines() if status == 0 else []):
            try:
                return {"found": json.loads(line)}
            except ValueError:  # a warning on standard error
                continue
        raise Refused("broken", said=said[-2000:])

    def do_start(
        self, job: str, words: List[str], files: Dict[str, str], environment: Dict[str, str], lease_s: float
    ) -> None:
        """Lay the files out in a new job's folder, run `python -m kdeploy WORDS` there, and have it watched.

        The other side names the job, so that it can end it, or ask again, when the connection drops before the answer.
        """
        folder = self._job(job)
        self._make_folder()
        with self._alone():
            if folder.exists() and _is_watched(folder):
                return
            self._require_idle()
            for left in _jobs(self._folder):  # by a power cut, say
                end_job(left)
            folder.mkdir()
            try:
                self._lay_out(folder, words, files, environment, lease_s)
                self._have_watched(folder)
            except BaseException:
                shutil.rmtree(str(folder), ignore_errors=True)
                raise

    def do_follow(self, job: str, events: int, stderr: int, patience_s: float) -> None:
        """From now on tell what a job says, each from a position in bytes on, and how it ended.

        patience_s: who follows sends signs of life, and is gone when none came for so long.
        """
        folder = self._job(job)
        if not folder.is_dir():
            raise Refused("gone")
        self._patience_s = patience_s
        self._positions = {"events": events, "stderr": stderr}
        self._followed = folder

    def do_beat(self) -> None:
        """A sign of life for the job that is followed."""
        if self._followed is not None:
            _touch(self._followed)

    def do_cancel(self, job: str) -> None:
        """End a job at once; answers when nothing of it is left."""
        self._unfollow()
        folder = self._job(job)
        try:
            (folder / "beat").unlink()  # needs no room on the disk, as a new file would
        except FileNotFoundError:
            pass
        until = time.monotonic() + 2 * PATIENCE_S
        while folder.exists() and time.monotonic() < until:
            time.sleep(0.05)
        if folder.exists():  # whoever watched it is gone
            end_job(folder)

    def do_results(self, job: str, outputs: List[str]) -> Dict[str, Any]:
        """The files of these paths, and what was printed, with their hashes."""
        work = self._job(job) / "work"
        if not work.is_dir():
            raise Refused("gone")
        found = {}
        for output in outputs:
            for path in _files(work / _inside(output)):
                found[str(path.relative_to(work))] = [_sha256(path), path.stat().st_size]
                _touch(work.parent)
        return {"files": found, "stdout": (work.parent / "stdout").read_bytes().decode(errors="replace")}

    def do_get(self, job: str, path: str) -> None:
        """Send a file of a job: its size, then its bytes, before the answer."""
        folder = self._job(job)
        with (folder / "work" / _inside(path)).open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            self.send({"size": size})
            while size:
                try:
                    chunk = stream.read(min(size, CHUNK))
                except OSError:
                    chunk = b""
                chunk = chunk or b"\0" * min(size, CHUNK)  # it became shorter: so many were promised, the hash tells
                _write(1, chunk)
                size -= len(chunk)
                _touch(folder)  # what goes through is a sign of life

    def do_clean(self) -> Dict[str, Any]:
        """End every job and remove the folder."""
        for job in _jobs(self._folder):
            self.do_cancel(job.name)
        there = self._folder.exists()
        real = self._folder.resolve() if there else self._folder  # it may be a link to a larger disk
        size = sum(path.lstat().st_size for path in real.rglob("*") if not path.is_dir()) if there else 0
        shutil.rmtree(str(real), ignore_errors=True)
        if self._folder.is_symlink():
            self._folder.unlink()
        return {"size_bytes": size, "there": there, "left": real.exists()}

    # What they are made of

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
            self.send({"ended": True, **(_read_json(job / "status") or {"status": None, **self._room()})})

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
            self.send({"new": name, "position": self._positions[name], "text": new.decode(errors="replace")})
        return bool(new)

    def _is_lost(self, job: Path) -> bool:
        """Whether nobody watches the job any more, as where a system ends all of a user's processes at once."""
        if time.monotonic() - self._looked_s < WATCHED_S:
            return False
        self._looked_s = time.monotonic()
        return not _is_watched(job) and job.exists() and not (job / "status").exists()

    def _unfollow(self) -> None:
        self._followed = None
        self._patience_s = IDLE_S

    def _job(self, name: str) -> Path:
        if not re.match(r"job-\w+$", name):
            raise Refused("outside", path=name)
        return self._folder / name

    def _make_folder(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else starts something in the meantime."""
        handle = os.open(str(self._folder), os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError:  # a file system without locks
                pass
            yield
        finally:
            os.close(handle)

    def _require_idle(self) -> None:
        since_s = self._busy_s()
        if since_s is not None:
            raise Refused("busy", since_s=since_s)

    def _busy_s(self) -> Optional[float]:
        """For how long a job has been at work; None: there is none."""
        for job in _jobs(self._folder):
            if _is_watched(job):
                try:
                    return max(0.0, time.time() - (job / "agent.py").stat().st_mtime)
                except FileNotFoundError:
                    continue
        return None

    def _lay_out(
        self, job: Path, words: List[str], files: Dict[str, str], environment: Dict[str, str], lease_s: float
    ) -> None:
        for folder in ("work", "tmp"):
            (job / folder).mkdir()
        for path, digest in files.items():
            target = job / "work" / _inside(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(self._kept(digest), target)
        cache = self._folder / "cache"
        own = {
            JOB: job.name,
            "TMPDIR": str(job / "tmp"),
            "XDG_CACHE_HOME": str(cache),
            "KDEPLOY_CACHE": str(cache / "kdeploy"),
            "CUDA_CACHE_PATH": str(cache / "cuda"),
            "KDEPLOY_EVENTS": str(job / "events"),
        }
        asked = {
            "command": [self._python, "-m", "kdeploy", *words],
            "environment": {**environment, **own},
            "lease_s": lease_s,
        }
        (job / "agent.py").write_bytes(self._source)
        (job / "job.json").write_text(json.dumps(asked))
        (job / "beat").touch()

    def _have_watched(self, job: Path) -> None:
        """Start the process that runs the job and outlives us."""
        subprocess.Popen(
            [sys.executable, str(job / "agent.py"), str(job)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    def _kept(self, digest: str) -> Path:
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise ValueError(digest)
        return self._folder / "files" / digest

    def _room(self) -> Dict[str, Any]:
        place = self._folder
        while not place.exists():
            place = place.parent
        return {"free_bytes": shutil.disk_usage(str(place)).free}

    def _run(self, command: List[str], environment: Dict[str, str]) -> Tuple[int, str]:
        """Run something that may take long: its status and the end of what it said. It ends with the connection."""
        running = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert running.stdout is not None
        pipe, said = running.stdout.fileno(), b""
        while True:
            ready = select.select([0, pipe], [], [], ALIVE_S)[0]
            if not ready:
                self.send({"alive": True})
            if 0 in ready and not self._fill():
                os.killpg(running.pid, signal.SIGKILL)
                raise SystemExit
            if pipe in ready:
                more = os.read(pipe, CHUNK)
                if not more:
                    break
                said = (said + more)[-4000:]
        running.stdout.close()
        status = running.wait()
        if status != 0 and (b"No space left on device" in said or b"Disk quota exceeded" in said):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return status, said.decode(errors="replace")

    def _readable(self, timeout_s: Optional[float]) -> bool:
        return bool(select.select([0], [], [], timeout_s)[0])

    def _fill(self) -> bool:
        if not self._readable(self._patience_s):
            return False
        self._heard_s = time.monotonic()
        more = os.read(0, CHUNK)
        self._input += more
        return bool(more)

    def _line(self) -> Optional[bytes]:
        """The next line; None: the other side is gone."""
        while b"\n" not in self._input:
            if not self._fill():
                return None
        line, _, self._input = self._input.partition(b"\n")
        return line

    def _chunks(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes. Ends the process where the other side goes in the middle of them."""
        while size:
            if not self._input and not self._fill():
                raise SystemExit
            chunk, self._input = self._input[:size], self._input[size:]
            size -= len(chunk)
            yield chunk


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


def end_job(job: Path) -> None:
    """Kill what runs of a job, and remove its folder."""
    until = time.monotonic() + KILLING_S
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


def _is_watched(job: Path) -> bool:
    """Whether the process that watches a job is alive."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(str(job)) in entry.read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False


def _beat(job: Path) -> Optional[int]:
    try:
        return (job / "beat").stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _touch(job: Path) -> None:
    """A sign of life; none where the job is to end."""
    try:
        os.utime(str(job / "beat"))
    except FileNotFoundError:
        pass


def _link(kept: Path, target: Path) -> None:
    """Have a kept file elsewhere; copied on a file system that has no links, as on many memory cards."""
    try:
        os.link(str(kept), str(target))
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
        shutil.copyfile(str(kept), str(target))


def _folder() -> Path:
    home = Path(os.path.expanduser("~"))
    if home.is_absolute() and os.access(str(home), os.W_OK):
        return home / FOLDER
    found = Path(tempfile.gettempdir()) / (FOLDER + "-" + str(os.geteuid()))
    if found.is_symlink() or (found.exists() and found.stat().st_uid != os.geteuid()):  # all may write beside it
        raise Refused("foreign", folder=str(found))
    return found


def _jobs(folder: Path) -> List[Path]:
    return sorted(folder.glob("job-*"))


def _inside(path: str) -> Path:
    """A path that stays in its folder."""
    found = Path(path)
    if found.is_absolute() or ".." in found.parts:
        raise Refused("outside", path=path)
    return found


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


def _read_json(path: Path) -> Dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return dict(found) if isinstance(found, dict) else {}


def _write(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def main(source: bytes, greeting: str) -> None:
    """Serve the other side, once it knows where our first message begins."""
    agent = Agent(source)
    try:
        os.write(1, greeting.encode() + b"\n")
        agent.serve()
    except BrokenPipeError:
        pass  # the other side is gone


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
