"""What a child of a measurement tells its parent: progress and what the library says, at the end what came of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdeploy import artifacts, events
from kdeploy.bench.job import Failure
from kdeploy.bench.record import Record
from kdeploy.errors import KdeployError, UserError

Send = Callable[[dict[str, Any]], None]


def told(outcome: Path, artifact: str, work: Callable[[Send], Record]) -> None:
    """Do the work and write what comes of it to `outcome`.

    A user's mistake is an outcome too, by `Failure`; any other exception is a traceback.
    """
    send = sender()
    with events.listening(_Relay(send)):
        try:
            found: Record = work(send)
        except KdeployError as error:
            found = Failure(kind=type(error).__name__, message=str(error))
        except MemoryError:
            why = f"Memory ran out while {artifact} was measured. Try a smaller batch, or less data."
            found = Failure(kind=UserError.__name__, message=why)
    artifacts.write_json(outcome, found.model_dump(mode="json"))


class _Relay:
    """A listener that sends what the library says to the parent."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def decided(self, what: str, value: str, why: str) -> None:
        self._send({"event": "decided", "arguments": [what, value, why]})

    def warned(self, text: str) -> None:
        self._send({"event": "warn", "arguments": [text]})

    def said(self, text: str) -> None:
        self._send({"event": "say", "arguments": [text]})

    @contextmanager
    def task(self, description: str, total: int | None) -> Iterator[events.Progress]:
        yield self

    def advance(self, steps: int = 1, **figures: float | str) -> None:
        """Bars inside the child are not shown: the parent has one for all of it."""


def sender() -> Send:
    """Keep standard output for our lines; whatever else a library prints there goes to standard error."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(line: dict[str, Any]) -> None:
        pipe.write(json.dumps(line) + "\n")
        pipe.flush()

    return send
