"""What was asked for goes to standard output: a table for people, or JSON with a schema version."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from kdeploy import artifacts, events
from kdeploy.cli.console import Terminal, stdout


@contextmanager
def talking() -> Iterator[None]:
    """Show the library's progress, decisions and warnings on standard error."""
    with events.listening(Terminal()):
        yield


def emit(target: str | None, payload: dict[str, Any], table: RenderableType) -> None:
    """Print `table`, or with `--json FILE` write `payload` there; `-` prints the JSON and nothing else.

    payload: JSON-able, with `schema_version`.
    """
    if target == "-":
        print(json.dumps(payload, indent=2, ensure_ascii=False, allow_nan=False))  # noqa: T201 - machine-readable
        return
    if target is not None:
        artifacts.write_json(Path(target), payload)
    stdout.print(table)
