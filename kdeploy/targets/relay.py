"""What the library says on a device, carried home: lines of JSON in a file there, replayed as events here."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from kdeploy import events

VARIABLE = "KDEPLOY_EVENTS"
"""The environment variable that names the file."""
_EVERY_S = 0.2


@contextmanager
def recording(path: Path) -> Iterator[None]:
    """Write what the library says to the file, for the length of the block."""
    try:
        recorder = Recorder(path)
    except OSError:
        yield
        return
    try:
        with events.listening(recorder):
            yield
    finally:
        recorder.close()


class Recorder:
    """A listener (`kdeploy.events`) that appends to a file. On a full disk progress is lost, not the work."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._numbers = itertools.count()

    def decided(self, what: str, value: str, why: str) -> None:
        self._write("decided", what, value, why)

    def warned(self, text: str) -> None:
        self._write("warn", text)

    def said(self, text: str) -> None:
        self._write("say", text)

    @contextmanager
    def task(self, description: str, total: int | None) -> Iterator[_Bar]:
        number = next(self._numbers)
        self._write("begin", number, description, total)
        bar = _Bar(self, number)
        failed = True
        try:
            yield bar
            failed = False
        finally:
            bar.flush()
            self._write("end", number, failed)

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()

    def _write(self, event: str, *arguments: Any) -> None:
        with suppress(OSError):
            self._file.write(json.dumps([event, *arguments], default=float) + "\n")
            self._file.flush()


class _Bar:
    """Gathers small steps: a line a step would be more work than the step."""

    def __init__(self, recorder: Recorder, number: int) -> None:
        self._recorder, self._number = recorder, number
        self._steps = 0
        self._figures: dict[str, float | str] = {}
        self._written_s = 0.0

    def advance(self, steps: int = 1, **figures: float | str) -> None:
        self._steps += steps
        self._figures.update(figures)
        if time.monotonic() - self._written_s >= _EVERY_S:
            self.flush()

    def flush(self) -> None:
        if self._steps or self._figures:
            self._recorder._write("advance", self._number, self._steps, self._figures)
            self._steps, self._figures = 0, {}
            self._written_s = time.monotonic()


class Replay:
    """Says here what was said there. Use as a context manager: bars that are still open end with it."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[AbstractContextManager[events.Progress], events.Progress]] = {}

    def hear(self, lines: str) -> None:
        """Replay whole lines of the file. One that a full disk cut off is left out, and what hangs on it."""
        for line in lines.splitlines():
            try:
                event, *arguments = json.loads(line)
            except ValueError:
                continue
            if event == "begin":
                number, description, total = arguments
                manager = events.task(description, total)
                self._open[number] = manager, manager.__enter__()
            elif event == "advance" and arguments[0] in self._open:
                number, steps, figures = arguments
                self._open[number][1].advance(steps, **figures)
            elif event == "end" and arguments[0] in self._open:
                self._end(*arguments)
            elif event in ("decided", "warn", "say"):
                getattr(events, event)(*arguments)

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *error: object) -> None:
        for number in reversed(list(self._open)):
            self._end(number, failed=True)

    def _end(self, number: int, failed: bool) -> None:
        manager, _ = self._open.pop(number)
        if not failed:
            manager.__exit__(None, None, None)
            return
        with suppress(_Failed):
            manager.__exit__(_Failed, _Failed(), None)


class _Failed(Exception):
    """What a bar hears of that did not come to its end."""
