"""A child process that ends with the block it was started for, whatever ends the block."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

_ASKED_TO_END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def child_process(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start `command` in a session of its own, with pipes of UTF-8; at the block's end it and its group are killed.

    options: further ones of `subprocess.Popen`. Ctrl-C reaches us alone, and then ends the child through this block.
    """
    child = None
    try:
        with held_signals():
            child = subprocess.Popen(command, start_new_session=True, encoding="utf-8", **options)
        yield child
    finally:
        if child is not None:
            _end(child)


@contextmanager
def held_signals() -> Iterator[None]:
    """Signals that ask us to end wait for the end of the block.

    Their handlers raise, and an exception in the middle of Popen loses the child that it has just started.
    """
    if threading.current_thread() is not threading.main_thread():  # handlers run in the main thread alone
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    before = {number: signal.getsignal(number) for number in _ASKED_TO_END}
    ours = {number: handler for number, handler in before.items() if callable(handler)}
    for number in ours:
        signal.signal(number, lambda found, frame: came.append((found, frame)))
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
    for caught, frame in came:
        ours[signal.Signals(caught)](caught, frame)


def _end(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
