"""A listener that writes what a run says to its `run.log`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdeploy.provenance import now


class RunLog:
    """Appends a line with the time for each decision, warning and statement; progress is left out."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "run.log"

    def decided(self, what: str, value: str, why: str) -> None:
        self._write(f"{what}: {value} ({why})")

    def warned(self, text: str) -> None:
        self._write(f"warning: {text}")

    def said(self, text: str) -> None:
        self._write(text)

    @contextmanager
    def task(self, description: str, total: int | None) -> Iterator[_Nothing]:
        self._write(f"{description} ...")
        yield _Nothing()
        self._write(f"{description}: done")

    def _write(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(f"{now()} {text}\n")


class _Nothing:
    def advance(self, steps: int = 1, **figures: float | str) -> None:
        return None
