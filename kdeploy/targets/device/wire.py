"""Standard input and output as a wire: each message is one line of JSON, followed by `size` bytes where it says so."""

import errno
import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from kdeploy.targets.device.base import CHUNK, write

_ALIVE_S = 2.0
"""How often the other side hears of us while it waits for something that takes long."""
IDLE_S = 1800.0
"""Without a word for so long the other side is gone: a pulled cable ends no connection by itself."""


class Wire:
    """patience_s: how long nothing may be heard."""

    def __init__(self) -> None:
        self.patience_s = IDLE_S
        self._input = b""
        self._heard_s = time.monotonic()

    def send(self, message: Dict[str, Any]) -> None:
        write(1, json.dumps(message).encode() + b"\n")

    def send_file(self, path: Path, sent: Callable[[], None]) -> None:
        """A file's size, then its bytes; `sent` is called after each part."""
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            self.send({"size": size})
            while size:
                try:
                    chunk = stream.read(min(size, CHUNK))
                except OSError:
                    chunk = b""
                chunk = chunk or b"\0" * min(size, CHUNK)  # it became shorter: so many were promised, the hash tells
                write(1, chunk)
                size -= len(chunk)
                sent()

    def has_more(self, timeout_s: Optional[float]) -> bool:
        """Whether something has come, or comes in time."""
        return b"\n" in self._input or self._readable(self.patience_s if timeout_s is None else timeout_s)

    def is_over(self) -> bool:
        """Whether nothing has been heard for too long."""
        return time.monotonic() - self._heard_s > self.patience_s

    def line(self) -> Optional[bytes]:
        """The next line; None: the other side is gone."""
        while b"\n" not in self._input:
            if not self._fill():
                return None
        line, _, self._input = self._input.partition(b"\n")
        return line

    def chunks(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes. Ends the process where the other side goes in the middle of them."""
        while size:
            if not self._input and not self._fill():
                raise SystemExit
            chunk, self._input = self._input[:size], self._input[size:]
            size -= len(chunk)
            yield chunk

    def run(self, command: List[str], environment: Dict[str, str]) -> Tuple[int, str]:
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
            ready = select.select([0, pipe], [], [], _ALIVE_S)[0]
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

    def _readable(self, timeout_s: float) -> bool:
        return bool(select.select([0], [], [], timeout_s)[0])

    def _fill(self) -> bool:
        if not self._readable(self.patience_s):
            return False
        self._heard_s = time.monotonic()
        more = os.read(0, CHUNK)
        self._input += more
        return bool(more)
