"""What the library has to say while it works: decisions, warnings, progress.

The library never prints. It calls these functions; the command line installs a listener that draws
bars on standard error, and a run installs one that writes `run.log`. Without a listener, warnings and
decisions go to the `kdeploy` logger and progress is silent.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

_logger = logging.getLogger("kdeploy")


class Progress(Protocol):
    """A bar under way."""

    def advance(self, steps: int = 1, **figures: float | str) -> None:
        """Move on by `steps` and show `figures` (loss, accuracy, ...) beside the bar."""


class Listener(Protocol):
    """Whoever hears what the library says."""

    def decided(self, what: str, value: str, why: str) -> None: ...

    def warned(self, text: str) -> None: ...

    def said(self, text: str) -> None: ...

    @contextmanager
    def task(self, description: str, total: int | None) -> Iterator[Progress]: ...


class _Silent:
    def advance(self, steps: int = 1, **figures: float | str) -> None:
        return None


class _Several:
    def __init__(self, bars: list[Progress]) -> None:
        self.bars = bars

    def advance(self, steps: int = 1, **figures: float | str) -> None:
        for bar in self.bars:
            bar.advance(steps, **figures)


class _Deaf:
    def decided(self, what: str, value: str, why: str) -> None:
        return None

    def warned(self, text: str) -> None:
        return None

    def said(self, text: str) -> None:
        return None

    @contextmanager
    def task(self, description: str, total: int | None) -> Iterator[Progress]:
        yield _Silent()


_listeners: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send everything said inside the block to `listener` as well."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextmanager
def unheard() -> Iterator[None]:
    """Nobody hears what is said inside the block: another process says the same."""
    before = list(_listeners)
    _listeners[:] = [_Deaf()]
    try:
        yield
    finally:
        _listeners[:] = before


def decided(what: str, value: object, why: str) -> None:
    """Report a decision taken by itself (device, precision, threads, ...) with its reason."""
    _logger.debug("%s: %s (%s)", what, value, why)
    for listener in list(_listeners):
        listener.decided(what, str(value), why)


def warn(text: str) -> None:
    """Report something the user should know that does not stop the work."""
    _logger.log(logging.DEBUG if _listeners else logging.WARNING, text)
    for listener in list(_listeners):
        listener.warned(text)


def say(text: str) -> None:
    """Report a plain line of progress ("teacher: 97.2 % on validation")."""
    _logger.debug(text)
    for listener in list(_listeners):
        listener.said(text)


@contextmanager
def task(description: str, total: int | None = None) -> Iterator[Progress]:
    """Show a bar for the length of the block; `total` is the number of steps, None where unknown."""
    if not _listeners:
        yield _Silent()
        return
    with ExitStack() as stack:
        yield _Several([stack.enter_context(listener.task(description, total)) for listener in list(_listeners)])
