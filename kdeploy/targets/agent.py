"""What runs on the device: it keeps files, starts one job at a time, and tells how that goes.

This file alone is sent over each connection and run by the device's own Python, before there is a kdeploy; so it needs
nothing but the standard library, and works from Python 3.6 on: a Python that is too old for kdeploy is told so.

It speaks over standard input and output: each message is one line of JSON, followed by `size` bytes where it says so.
Everything it keeps lies in one folder: `files/`, by SHA-256; `venv/`, the environment; `job-*/`, a job at work.

A job is watched by a process of its own, which outlives a connection. It ends the job when no sign of life has come
through for the length of the lease, or when it is asked to.
"""

import errno
import hashlib
import importlib.util
import json
import os
import platform
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

CHUNK = 1 << 20
FOLDER = ".kdeploy-target"
"""In the home folder; where that cannot be written, as in a read-only container, under the temporary one."""
JOB = "KDEPLOY_JOB"
"""In the environment of all processes of a job, by which they are found."""
PATIENCE_S = 3.0
"""How long a job that is asked to end may take until it is killed."""
LOOK_S = 0.25


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

    def serve(self) -> None:
        """Answer until the other side is gone."""
        while True:
            if self._followed is not None:
                self._tell()
            if b"\n" not in self._input and not self._readable(LOOK_S if self._followed else None):
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
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
                raise
            return {"error": "disk", "why": error.strerror, "folder": str(self._folder), **self._room()}

    def send(self, message: Dict[str, Any]) -> None:
        _write(1, json.dumps(message).encode() + b"\n")

    # Requests

    def do_hello(self, own: bool) -> Dict[str, Any]:
        """What this machine is. own: this Python is the environment, as in a container that has kdeploy."""
        self._folder = _folder()
        self._python = sys.executable if own else str(self._folder / "venv" / "bin" / "python")
        return {
            "architecture": platform.machine(),
            "python": list(sys.version_info[:3]),
            "libc": platform.libc_ver()[1],
            "folder": str(self._folder),
            "environment": own or Path(self._python).exists(),
            "tensorrt": importlib.util.find_spec("tensorrt") is not None,
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
        handle = None
        name = ""
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".", dir=str(target.parent))
        except OSError as error:
            problem = error
        for chunk in self._chunks(size):
            digest.update(chunk)
            try:
                if handle is not None and problem is None:
                    _write(handle, chunk)
            except OSError as error:  # all bytes are read all the same, or the next request could not be
                problem = error
        if handle is not None:
            os.close(handle)
        if problem is None and digest.hexdigest() == sha256:
            os.chmod(name, 0o444)
            os.replace(name, str(target))
            return {}
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
        venv = self._folder / "venv"
        shutil.rmtree(str(venv), ignore_errors=True)
        venv.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "venv", "--without-pip", str(venv)]
        command += ["--system-site-packages"] if system_packages else []
        status, said = self._run(command, {})
        if status != 0:
            raise Refused("failed", command=" ".join(command), said=said)

    def do_pip(self, pip: str, arguments: List[str], wheels: Dict[str, str]) -> Dict[str, Any]:
        """Run a pip wheel, that is kept here, in the environment; wheels: names of files and their hashes."""
        with tempfile.TemporaryDirectory(prefix="wheels-", dir=str(self._folder)) as folder:
            for name, digest in wheels.items():
                os.link(str(self._kept(digest)), os.path.join(folder, name))
            carried = ["--no-index", "--find-links", folder] if wheels else []
            beside = Path(folder) / "pip.whl"
            os.link(str(self._kept(pip)), str(beside))
            command = [self._python, str(beside / "pip"), "install", *carried, *arguments]
            status, said = self._run(command, {"TMPDIR": folder, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
        return {"status": status, "said": said}

    def do_code(self, wheel: str) -> None:
        """Have the kdeploy of this wheel in the environment; no pip is needed for pure Python."""
        packages = Path(next(iter((self._folder / "venv" / "lib").glob("python*/site-packages"))))
        mark = packages / "kdeploy.sha256"
        if mark.exists() and mark.read_text() == wheel:
            return
        if mark.exists():
            mark.unlink()
        for old in [packages / "kdeploy", *packages.glob("kdeploy-*.dist-info")]:
            shutil.rmtree(str(old), ignore_errors=True)
        with zipfile.ZipFile(str(self._kept(wheel))) as archive:
            archive.extractall(str(packages))
        mark.write_text(wheel)

    def do_state(self, state: Dict[str, Any]) -> None:
        """Remember something for later connections."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "state.json").write_text(json.dumps(state))

    def do_ask(self, program: str) -> Dict[str, Any]:
        """Run a few lines in the environment and pass on the JSON that they print."""
        done = subprocess.run(
            [self._python, "-c", program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        if done.returncode != 0:
            raise Refused("broken", said=done.stderr.decode(errors="replace")[-2000:])
        return {"found": json.loads(done.stdout.decode())}

    def do_start(
        self, words: List[str], files: Dict[str, str], environment: Dict[str, str], lease_s: float
    ) -> Dict[str, Any]:
        """Lay the files out in a new job's folder, run `python -m kdeploy WORDS` there, and have it watched."""
        for other in _jobs(self._folder):
            if _is_watched(other):
                raise Refused("busy", since_s=time.time() - other.stat().st_ctime)
            end_job(other)  # left by a power cut, say
        self._folder.mkdir(parents=True, exist_ok=True)
        job = Path(tempfile.mkdtemp(prefix="job-", dir=str(self._folder)))
        try:
            self._lay_out(job, words, files, environment, lease_s)
        except BaseException:
            shutil.rmtree(str(job), ignore_errors=True)
            raise
        subprocess.Popen(
            [sys.executable, str(job / "agent.py"), str(job)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        return {"job": job.name}

    def do_follow(self, job: str, events: int, stderr: int) -> None:
        """From now on tell what a job says, each from a position in bytes on, and how it ended."""
        folder = self._folder / job
        if not folder.is_dir():
            raise Refused("gone")
        self._positions = {"events": events, "stderr": stderr}
        self._followed = folder

    def do_beat(self) -> None:
        """A sign of life for the job that is followed."""
        if self._followed is not None:
            try:
                os.utime(str(self._followed / "beat"))
            except FileNotFoundError:
                pass

    def do_cancel(self, job: str) -> None:
        """End a job at once; answers when nothing of it is left."""
        self._followed = None
        folder = self._folder / job
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
        work = self._folder / job / "work"
        if not work.is_dir():
            raise Refused("gone")
        found = {}
        for output in outputs:
            for path in _files(work / _inside(output)):
                found[str(path.relative_to(work))] = [_sha256(path), path.stat().st_size]
        return {"files": found, "stdout": (work.parent / "stdout").read_bytes().decode(errors="replace")}

    def do_get(self, job: str, path: str) -> None:
        """Send a file of a job: its size, then its bytes, before the answer."""
        with (self._folder / job / "work" / _inside(path)).open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            self.send({"size": size})
            while size:
                chunk = stream.read(min(size, CHUNK))
                _write(1, chunk)
                size -= len(chunk)

    def do_clean(self) -> Dict[str, Any]:
        """End every job and remove the folder."""
        for job in _jobs(self._folder):
            self.do_cancel(job.name)
        there = self._folder.exists()
        size = sum(path.lstat().st_size for path in self._folder.rglob("*") if not path.is_dir()) if there else 0
        shutil.rmtree(str(self._folder), ignore_errors=True)
        return {"size_bytes": size, "there": there, "left": self._folder.exists()}

    # What they are made of

    def _tell(self) -> None:
        """Send what is new of the followed job, and its end."""
        job = self._followed
        assert job is not None
        ended = (job / "status").exists() or not job.exists()  # looked at first: what is written after is read next
        for name in ("events", "stderr"):
            try:
                with (job / name).open("rb") as stream:
                    stream.seek(self._positions[name])
                    new = stream.read(CHUNK)
            except FileNotFoundError:
                continue
            if name == "events":
                new = new[: new.rfind(b"\n") + 1]
            if new:
                self._positions[name] += len(new)
                self.send({"new": name, "position": self._positions[name], "text": new.decode(errors="replace")})
        if ended:
            self._followed = None
            try:
                status = int((job / "status").read_text())
            except (FileNotFoundError, ValueError):
                status = None
            self.send({"ended": True, "status": status, **self._room()})

    def _lay_out(
        self, job: Path, words: List[str], files: Dict[str, str], environment: Dict[str, str], lease_s: float
    ) -> None:
        for folder in ("work", "tmp"):
            (job / folder).mkdir()
        for path, digest in files.items():
            target = job / "work" / _inside(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(str(self._kept(digest)), str(target))
        own = {
            JOB: job.name,
            "TMPDIR": str(job / "tmp"),
            "XDG_CACHE_HOME": str(self._folder / "cache"),
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
            ready = select.select([0, pipe], [], [])[0]
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
    environment = {**os.environ, **asked["environment"]}
    with (job / "stdout").open("wb") as out, (job / "stderr").open("wb") as err:
        started = subprocess.Popen(
            asked["command"],
            cwd=str(job / "work"),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    seen, at = None, time.monotonic()
    while True:
        beat = _beat(job)
        if beat is None or (beat == seen and time.monotonic() - at > asked["lease_s"]):
            break
        if beat != seen:
            seen, at = beat, time.monotonic()
        if started.poll() is not None and not (job / "status").exists():
            _tell_status(job, started.returncode)
        time.sleep(LOOK_S)
    if started.poll() is None:
        started.send_signal(signal.SIGTERM)
        try:
            started.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            pass
    end_job(job)
    started.wait()


def end_job(job: Path) -> None:
    """Kill what runs of a job, and remove its folder."""
    while True:
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
    """On a full disk, too: the room is that of files which are not needed any more."""
    shutil.rmtree(str(job / "tmp"), ignore_errors=True)
    beside = job / "job.json"
    try:
        beside.write_text(str(status))
    finally:
        beside.replace(job / "status")


def _is_watched(job: Path) -> bool:
    """Whether the process that watches a job is alive."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(job).encode() in entry.read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False


def _beat(job: Path) -> Optional[int]:
    try:
        return (job / "beat").stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _folder() -> Path:
    home = Path(os.path.expanduser("~"))
    if os.access(str(home), os.W_OK):
        return home / FOLDER
    return Path(tempfile.gettempdir()) / FOLDER


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
    os.write(1, greeting.encode() + b"\n")
    agent.serve()


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
