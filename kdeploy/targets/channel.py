"""Our end of a connection to a device: the agent is started there, asked, and heard."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from kdeploy.children import held_signals
from kdeploy.errors import Unavailable, UserError
from kdeploy.targets.program import program
from kdeploy.targets.refusals import refusal, unreachable

if TYPE_CHECKING:
    from kdeploy.targets.base import Target

_CHUNK = 1 << 20
# One line, and no quote but the double one: fish and csh take a word in single quotes otherwise than sh does.
_BOOTSTRAP = (
    "import os; n, s = {size}, bytearray(); "
    "any(iter(lambda: s.extend(os.read(0, n - len(s)) or exit(1)) or len(s) == n, True)); "
    'names = dict(__name__="agent"); exec(compile(bytes(s), "agent.py", "exec"), names); '
    'names["main"](bytes(s), "{greeting}")'
)
_SILENCE_S = 120.0
"""An answer that takes longer announces itself: without a word for so long, the other side hangs."""
_SAID = 1 << 14
"""How much is kept of what a command said on standard error, whose end is what tells."""

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
        last = "".join(channel.said.splitlines()[-1:])
        said = f" It said: {last}" if last else ""
        raise Unavailable(f"The connection to {target.text} dropped. Try it again.{said}") from None


class Channel:
    """A connection over the pipes of a command (ssh, docker) that runs a Python program elsewhere.

    command: what to start, given the Python program as one word. Raises Unavailable where nothing answers, with what
    the command said on standard error. place: what messages call the device. try_first: what to type to see whether it
    can be reached at all.

    heard_s: when something came through last, by the monotonic clock.
    """

    def __init__(self, command: Callable[[str], Sequence[str]], place: str, try_first: str = "") -> None:
        self._place = place
        self._input = b""
        self._asked = 0
        self._within_file = False
        self.said = ""
        self.heard_s = time.monotonic()
        source = program()
        greeting = f"kdeploy {uuid.uuid4().hex}"
        words = command(_BOOTSTRAP.format(size=len(source), greeting=greeting))
        # A file, not a pipe: nobody reads along, and who writes much of it would wait for ever. A connection that
        # ssh shares and leaves in the background may hold it longer than we do.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the connection
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._start(words)
            self._write(source)
            self._await(greeting.encode() + b"\n")
        except FileNotFoundError:
            self._close()
            raise Unavailable(f"{place} can't be reached: there is no {words[0]} here. Install it first.") from None
        except Lost:
            said = self._close()
            raise unreachable(place, self._running.returncode, said, try_first) from None
        except BaseException:
            self._close()
            raise

    def ask(self, do: str, **details: Any) -> dict[str, Any]:
        """One request and its answer. Raises a KdeployError for what can't be done there, Lost without an answer."""
        return self.answer(self.tell(do, **details))

    def tell(self, do: str, **details: Any) -> int:
        """A request, whose answer `answer` waits for by the number that is returned; it may be left unread.

        Raises Lost where a file was left in the middle: what is said now would be taken for a part of it.
        """
        if self._within_file:
            raise Lost
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
        with path.open("rb") as stream, self._file():
            while size:
                chunk = stream.read(min(size, _CHUNK))
                if not chunk:
                    raise UserError(f"{path} became shorter while it was sent: is something writing to it?")
                self._write(chunk)
                self.heard_s = time.monotonic()
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
        with target.open("wb") as stream, self._file():
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

    @contextmanager
    def _file(self) -> Iterator[None]:
        """Within the bytes of a file: whatever ends the block early leaves the connection of no use."""
        self._within_file = True
        yield
        self._within_file = False

    def _message(self) -> dict[str, Any]:
        while b"\n" not in self._input:
            self._fill()
        line, _, self._input = self._input.partition(b"\n")
        try:
            found: dict[str, Any] = dict(json.loads(line))
        except (ValueError, TypeError):  # something else than our agent wrote into the connection
            raise Lost from None
        return found

    def _await(self, greeting: bytes) -> None:
        """Skip what a login shell prints before the agent speaks."""
        while greeting not in self._input:  # for as long as it takes to type a password
            self._fill(None)
        self._input = self._input.partition(greeting)[2]

    def _readable(self, timeout_s: float | None) -> bool:
        assert self._running.stdout is not None
        return bool(select.select([self._running.stdout], [], [], timeout_s)[0])

    def _fill(self, patience_s: float | None = _SILENCE_S) -> None:
        assert self._running.stdout is not None
        if not self._readable(patience_s):
            raise Lost
        more = os.read(self._running.stdout.fileno(), _CHUNK)
        if not more:
            raise Lost
        self.heard_s = time.monotonic()
        self._input += more

    def _write(self, data: bytes) -> None:
        assert self._running.stdin is not None
        if self._running.stdin.closed:
            raise Lost
        try:
            while data:
                data = data[os.write(self._running.stdin.fileno(), data) :]
        except BrokenPipeError:
            raise Lost from None

    def _start(self, words: Sequence[str]) -> None:
        with held_signals():  # a Ctrl-C in the middle would lose the process
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                # Ctrl-C is for us: we still have to say to the device that it is over. ssh leaves an ignored one so.
                preexec_fn=_ignore_interruptions,
            )

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def _close(self) -> str:
        """End the connection; what the command said on standard error."""
        if self._process is not None:
            _end(self._process)
        with self._said:
            self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - _SAID))
            return self._said.read().decode(errors="replace").strip()


def _end(process: subprocess.Popen[bytes]) -> None:
    """By the end of its input, then asked, for ssh may hide what is typed, then killed."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    for more in (process.terminate, process.kill, None):
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            if more is not None:
                more()
    process.stdout.close()


def _ignore_interruptions() -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
