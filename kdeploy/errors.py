"""The errors a user can act on, each with its exit status; every other exception is a bug of ours."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable

SETUP = "KDEPLOY_SETUP"
"""The environment variable of a device's work: the command that sets the device up; empty for an image."""


class KdeployError(Exception):
    """Something the user can act on: one sentence that says what, where, and what to do instead."""

    exit_status = 2


class UserError(KdeployError):
    """The input is wrong and the user can put it right (a file, a key, a name)."""

    exit_status = 2


class GateFailed(KdeployError):
    """A gate did not hold: parity, accuracy, or a regression against a baseline."""

    exit_status = 3


class InvalidMeasurement(KdeployError):
    """A measurement is INVALID and `--strict` was asked for."""

    exit_status = 4


class Unavailable(KdeployError):
    """An engine, a device or a target is not to be had on this machine."""

    exit_status = 5


def nearest(name: str, choices: Iterable[str]) -> str:
    """Name the choice closest to what was typed, as the end of an error message.

    Returns " Did you mean 'x'?" where something is close, else " Choose from: a, b, c.".
    """
    known = sorted(choices)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" Choose from: {', '.join(known)}." if known else ""


def missing_extra(package: str, extra: str, purpose: str) -> Unavailable:
    """The error for an optional dependency that is not installed, with the command that installs it."""
    return Unavailable(f"{purpose} needs {package}, which is not installed. Type: {install_command(extra)}")


def install_command(extra: str) -> str:
    """What to type to have an extra of kdeploy: at home, where this is a device that was set up from there."""
    setup = os.environ.get(SETUP)
    return f"{setup} --extra {extra}" if setup else f"pip install 'kdeploy[{extra}]'"


def on_device() -> bool:
    """Whether this process does for `--target` what was typed on another machine."""
    return SETUP in os.environ
