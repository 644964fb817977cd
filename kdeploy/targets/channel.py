"""Our end of a connection to a device: the agent is started there, asked, and heard."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from kdeploy.errors import KdeployError, Unavailable, UserError

if TYPE_CHECKING:
    from kdeploy.targets.base import Target

_CHUNK = 1 << 20
_BOOTSTRAP = (
    "import os; n, s = {size}, b'' \n"
    "while len(s) < n: s += os.read(0, n - len(s)) or exit(1)\n"
    "names = dict(__name__='agent'); exec(compile(s, 'agent.py', 'exec'), names); names['main'](s, '{greeting}')"
)

News = Callable[[dict[str, Any]], None]


class Lost(Exception):
    """The connection ended, or nothing came through it for too long."""


@contextmanager
def connected(target: Target) -> Iterator[Channel]:
    """A connection that is not taken up again: raises Unavailable where it drops."""
    try:
        with target.connect() as channel:
            yield channel
    except Lost:
        said = f" It said: {channel.said}" if channel.said else ""
        raise Unavailable(f"The connection to {target.text} dropped. Try it again.{said}") from None


class Channel:
    """A connection over the pipes of a command (ssh, docker) that runs a Python program elsewhere.

    command: what to start, given the Python program as one word. Raises Unavailable where nothing answers, with what
    the command said on standard error. place: what messages call the device.
    """

    def __init__(self, command: Callable[[str], Sequence[str]], place: str) -> None:
        self._place = place
        self._input = b""
        self._asked = 0
        self.said = ""
        source = (resources.files("kdeploy.targets") / "agent.py").read_bytes()
        greeting = f"kdeploy {uuid.uuid4().hex}"
        words = command(_BOOTSTRAP.format(size=len(source), greeting=greeting))
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # Ctrl-C is for us: we still have to say to the device that it is over. ssh leaves an ignored one so.
                preexec_fn=_ignore_ctrl_c,
            )
        except FileNotFoundError:
            raise Unavailable(f"{place} can't be reached: there is no {words[0]} here. Install it first.") from None
        try:
            self._write(source)
            self._await(greeting.encode() + b"\n")
        except BaseException as error:
            said = self._close()
            if isinstance(error, Lost):
                raise Unavailable(_why_not(place, self._process.returncode, said)) from None
            raise

    def ask(self, do: str, **details: Any) -> dict[str, Any]:
        """One request and its answer. Raises a KdeployError for what can't be done there, Lost without an answer."""
        return self.answer(self.tell(do, **details))

    def tell(self, do: str, **details: Any) -> int:
        """A request, whose answer `answer` waits for by the number that is returned; it may be left unread."""
        self._asked += 1
        self._write(json.dumps({"number": self._asked, "do": do, **details}).encode() + b"\n")
        return self._asked

    def answer(self, number: int) -> dict[str, Any]:
        """The answer to a request; other messages that come before it are dropped."""
        while (message := self._message()).get("to") != number:
            pass
        if "error" in message:
            raise refusal(message, self._place)
        return message

    def send_file(self, path: Path, sha256: str, told: Callable[[int], None]) -> None:
        """Have a file kept there; `told` hears how many bytes have gone."""
        size = path.stat().st_size
        number = self.tell("put", sha256=sha256, size=size)
        with path.open("rb") as stream:
            while size:
                chunk = stream.read(min(size, _CHUNK))
                if not chunk:
                    raise UserError(f"{path} became shorter while it was sent: is something writing to it?")
                self._write(chunk)
                size -= len(chunk)
                told(len(chunk))
        self.answer(number)

    def fetch_file(self, job: str, name: str, target: Path) -> None:
        """Write a job's file to `target`."""
        number = self.tell("get", job=job, path=name)
        while "size" not in (message := self._message()):
            if message.get("to") == number:
                raise refusal(message, self._place)
        size = int(message["size"])
        with target.open("wb") as stream:
            while size:
                if not self._input:
                    self._fill()
                chunk, self._input = self._input[:size], self._input[size:]
                stream.write(chunk)
                size -= len(chunk)
        self.answer(number)

    def hear(self, timeout_s: float) -> dict[str, Any] | None:
        """The next message; None: none came in time."""
        until = time.monotonic() + timeout_s
        while b"\n" not in self._input:
            left = until - time.monotonic()
            if left <= 0 or not self._readable(left):
                return None
            self._fill()
        return self._message()

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.said = self._close()

    def _message(self) -> dict[str, Any]:
        while b"\n" not in self._input:
            self._fill()
        line, _, self._input = self._input.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def _await(self, greeting: bytes) -> None:
        """Skip what a login shell prints before the agent speaks."""
        while greeting not in self._input:
            self._fill()
        self._input = self._input.partition(greeting)[2]

    def _readable(self, timeout_s: float) -> bool:
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], timeout_s)[0])

    def _fill(self) -> None:
        assert self._process.stdout is not None
        more = os.read(self._process.stdout.fileno(), _CHUNK)
        if not more:
            raise Lost
        self._input += more

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            while data:
                data = data[os.write(self._process.stdin.fileno(), data) :]
        except BrokenPipeError:
            raise Lost from None

    def _close(self) -> str:
        """End the connection; what the command said on standard error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        os.set_blocking(self._process.stderr.fileno(), False)  # a shared connection in the background may hold it
        said = self._process.stderr.read() or b""
        self._process.stderr.close()
        return said.decode(errors="replace").strip()


def refusal(message: dict[str, Any], place: str) -> KdeployError:
    """What a device refused, in one sentence that says what to do."""
    kind = message["error"]
    if kind == "disk":
        free = message["free_bytes"] >> 20
        return UserError(
            f"{place}: {message['why']} in {message['folder']} ({free} MiB are free). Make room there; "
            "`kdeploy target clean` removes what kdeploy keeps on it."
        )
    if kind == "busy":
        return Unavailable(
            f"{place} has been busy with another measurement for {message['since_s']:.0f} s; two at a time would "
            "disturb each other. Wait for its end."
        )
    if kind == "outside":
        return Unavailable(f"{place} refused {message['path']!r}, a path outside its job.")
    if kind == "broken":
        last = "".join(message["said"].strip().splitlines()[-1:])
        return Unavailable(f"{place}: its environment does not work ({last}). Make it anew: kdeploy target setup")
    if kind == "failed":
        said = message["said"].strip()
        return Unavailable(f"{place}: `{message['command']}` failed: {said}")
    return Unavailable(f"{place}: {kind}.")


def _ignore_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _why_not(place: str, status: int | None, said: str) -> str:
    lines = [line for line in said.splitlines() if not line.startswith("Warning: Permanently added")]
    if status == 127 or "python3: not found" in said or "python3: command not found" in said:
        return f"{place} has no python3. Install it there, for instance: sudo apt install python3 python3-venv"
    if "SyntaxError" in said:
        return f"{place} has a Python that is too old to be asked: kdeploy needs 3.10 or newer there."
    return f"{place} can't be reached: {' '.join(lines) or f'the connection ended with status {status}'}"
