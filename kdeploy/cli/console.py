"""What a person sees while kdeploy works: bars, decisions and warnings, all on standard error.

On a terminal the bars move; elsewhere (a file, a pipe, CI) they become sparse plain lines.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

_PLAIN_EVERY_S = 15.0

stdout = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)


class Terminal:
    """A listener (`kdeploy.events`) that shows what the library says."""

    def __init__(self, console: Console = stderr) -> None:
        self.console = console
        self._decisions: set[tuple[str, str]] = set()
        self._progress: Progress | None = None

    def decided(self, what: str, value: str, why: str) -> None:
        """Each decision once: several networks of a run take the same ones."""
        if (what, value) not in self._decisions:
            self._decisions.add((what, value))
            self._line(f"{what}: {value} ({why})", style="dim", mark="·")

    def warned(self, text: str) -> None:
        self._line(text, style="yellow", mark="!")

    def said(self, text: str) -> None:
        self._line(text, style="", mark="-")

    @contextmanager
    def task(self, description: str, total: int | None) -> Iterator[_Bar | _PlainBar]:
        if not self.console.is_terminal:
            yield _PlainBar(self.console, description, total)
            return
        if self._progress is not None:  # a bar inside a bar shares the display
            yield _Bar(self._progress, self._progress.add_task(description, total=total, figures=""))
            return
        with _display(self.console) as self._progress:
            try:
                yield _Bar(self._progress, self._progress.add_task(description, total=total, figures=""))
            finally:
                self._progress = None

    def _line(self, text: str, *, style: str, mark: str) -> None:
        self.console.print(f"{mark} {text}", style=style, markup=False, soft_wrap=True)


def _display(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(min_width=18, no_wrap=True)),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[figures]}", style="dim", markup=False, table_column=Column(no_wrap=True)),
        console=console,
    )


class _Bar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task
        self._figures: dict[str, float | str] = {}

    def advance(self, steps: int = 1, **figures: float | str) -> None:
        self._figures.update(figures)
        self._progress.update(self._task, advance=steps, figures=_written(self._figures))


class _PlainBar:
    """A line when it starts to matter, then one every quarter of a minute."""

    def __init__(self, console: Console, description: str, total: int | None) -> None:
        self._console = console
        self._description = description
        self._total = total
        self._done = 0
        self._figures: dict[str, float | str] = {}
        self._started = self._shown = time.monotonic()

    def advance(self, steps: int = 1, **figures: float | str) -> None:
        self._done += steps
        self._figures.update(figures)
        now = time.monotonic()
        if now - self._shown < _PLAIN_EVERY_S:
            return
        self._shown = now
        of = f" of {self._total}, {self._left(now)} left" if self._total else ""
        figures_text = _written(self._figures)
        line = f"{self._description}: {self._done}{of}" + (f"  {figures_text}" if figures_text else "")
        self._console.print(line, markup=False, soft_wrap=True)

    def _left(self, now: float) -> str:
        assert self._total
        if not self._done:
            return "?"
        seconds = (now - self._started) / self._done * (self._total - self._done)
        return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _written(figures: dict[str, float | str]) -> str:
    return "  ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items()
    )
