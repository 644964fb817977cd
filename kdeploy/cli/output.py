"""What was asked for goes to standard output: a table for people, or JSON with a schema version."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from kdeploy import artifacts, events
from kdeploy.cli.console import Terminal, stderr, stdout
from kdeploy.targets import relay

ONLY_JSON = "-"
"""The value of `--json` that leaves nothing but JSON on standard output."""


@contextmanager
def talking(*, brief: bool = False) -> Iterator[None]:
    """Show the library's progress, decisions and warnings on standard error; brief: bars go when they are full."""
    if path := os.environ.get(relay.VARIABLE):  # this is a device, and the terminal is at home
        with relay.recording(Path(path)):
            yield
        return
    with events.listening(Terminal(brief=brief)):
        yield


def emit(target: str | None, payload: dict[str, Any], table: RenderableType) -> None:
    """Print `table`, or with `--json FILE` write `payload` there as well; `-` prints the JSON and nothing else.

    payload: JSON-able, with `schema_version`; SCHEMAS.md says what is in it. table: a string is printed as it is.
    """
    if target == ONLY_JSON:
        write(json.dumps(payload, indent=2, ensure_ascii=False, allow_nan=False))
        return
    if target is not None:
        artifacts.write_json(Path(target), payload)
    if isinstance(table, str):
        write(table)
    else:
        stdout.print(table)


def add(target: str | None, text: str) -> None:
    """Print lines below the table; with `--json -` they go to standard error."""
    console = stderr if target == ONLY_JSON else stdout
    console.print(f"\n{text}", markup=False, soft_wrap=True)


def write(text: str) -> None:
    """Print text as it is: no folding, no colours."""
    stdout.out(text, highlight=False)
