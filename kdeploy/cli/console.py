"""What a person sees while kdeploy works: bars, decisions and warnings, all on standard error.

On a terminal the bars move; elsewhere (a file, a pipe, CI) they become sparse plain lines.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType, RenderResult
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

_PLAIN_EVERY_S = 15.0
_PLAIN_FROM_S = 2.0
"""A task that took less is not worth a line of its own in a file."""
_BAR_FROM_S = 0.5
"""A task that took less leaves no bar behind on a terminal."""
_AT_ONCE_S = 0.02
_SPEED_OVER_S = 300.0
"""The time left is reckoned from the last so many seconds; Rich's own 30 are too few where steps are slow."""
_BAR_WIDTH = 12
_UNFOLDED = 160
"""Columns of a file or a pipe, where a table that is folded at 80 would be of no use."""


class SteadyConsole(Console):
    """A console that minds neither a reader who has left (`| head`) nor a place without a width."""

    @property
    def size(self) -> ConsoleDimensions:
        found = super().size
        return found if self.is_terminal or "COLUMNS" in os.environ else ConsoleDimensions(_UNFOLDED, found.height)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size

    def on_broken_pipe(self) -> None:
        """Go on in silence: whoever stopped reading did not ask the work to stop."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


stdout = SteadyConsole(highlight=False)
stderr = SteadyConsole(stderr=True, highlight=False)


class Terminal:
    """A listener (`kdeploy.events`) that shows what the library says."""

    def __init__(self, console: Console = stderr, *, brief: bool = False) -> None:
        self.console = console
        self._brief = brief
        self._decisions: set[tuple[str, str]] = set()
        self._progress: Progress | None = None
        self._open = 0

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
        if not self.console.is_terminal or self.console.is_dumb_terminal:
            plain = _PlainBar(self.console, description, total)
            self._open += 1
            try:
                yield plain
            finally:
                self._open -= 1
            if not self._brief and not self._open:  # one within another leaves no line of its own
                plain.finish()
        elif self._progress is not None:  # a bar inside a bar shares the display
            yield from _shown(self._progress, description, total, within=True)
        else:
            with _display(self.console, self._brief) as self._progress:
                try:
                    yield from _shown(self._progress, description, total, within=False)
                finally:
                    self._progress = None

    def _line(self, text: str, *, style: str, mark: str) -> None:
        self.console.print(f"{mark} {text}", style=style, markup=False, soft_wrap=True)


def _shown(progress: Progress, description: str, total: int | None, *, within: bool) -> Iterator[_Bar]:
    """Show a bar for the length of the block; one within another leaves no line of its own."""
    bar = _Bar(progress, progress.add_task(description, total=total, figures="", failed=False), total)
    try:
        yield bar
    except BaseException:
        bar.fail()
        raise
    bar.finish(leave=not within)


def _display(console: Console, brief: bool) -> Progress:
    """One line a task: what, how far, how long, and the figures, which are cut off first where there is no room."""
    one_line = Column(no_wrap=True, min_width=20)
    return _Display(
        _Mark(),
        TextColumn("{task.description}", markup=False, table_column=one_line),
        _Share(),
        _Clock(),
        TextColumn("{task.fields[figures]}", style="dim", markup=False, table_column=Column(no_wrap=True, ratio=1)),
        console=console,
        speed_estimate_period=_SPEED_OVER_S,
        transient=brief,
        expand=True,
    )


class _Display(Progress):
    def get_renderable(self) -> RenderableType:
        return _Narrower(super().get_renderable())


class _Narrower:
    """Leaves the last columns free: where the terminal writes ^C, a line that it breaks would stay behind."""

    def __init__(self, renderable: RenderableType) -> None:
        self.renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self.renderable, options.update(width=options.max_width - len("^C") - 1))


class _Mark(SpinnerColumn):
    """Turns while a task is under way."""

    def render(self, task: Task) -> RenderableType:
        if task.fields["failed"]:
            return Text("✗", style="red")
        return Text("✓") if task.finished else super().render(task)


class _Share(ProgressColumn):
    """A bar where the number of steps is known; nothing where it is not."""

    def render(self, task: Task) -> Text:
        if task.total is None or (task.finished and task.total == 1):
            return Text(" " * _BAR_WIDTH)
        filled = round(task.percentage / 100 * _BAR_WIDTH)
        return Text("━" * filled).append("─" * (_BAR_WIDTH - filled), style="dim")


class _Clock(ProgressColumn):
    """The time left of a task that can tell, the time taken of one that can't or is over."""

    def render(self, task: Task) -> Text:
        left = None if task.finished or task.fields["failed"] else task.time_remaining
        text = duration(task.elapsed or 0.0) if left is None else f"{duration(left)} left"
        return Text(text.rjust(10), no_wrap=True)


class _Bar:
    def __init__(self, progress: Progress, task: TaskID, total: int | None) -> None:
        self._progress = progress
        self._task = task
        self._total = total
        self._figures: dict[str, float | str] = {}
        self._started = time.monotonic()

    def advance(self, steps: int = 1, **figures: float | str) -> None:
        self._figures.update(figures)
        self._progress.update(self._task, advance=steps, figures=_written(self._figures))

    def finish(self, *, leave: bool) -> None:
        """Fill the bar and stop the clock; a task that was over at once leaves no line either."""
        if not leave or time.monotonic() - self._started < _BAR_FROM_S:
            self._progress.remove_task(self._task)
            return
        total = self._total or 1
        self._progress.update(self._task, completed=total, total=total)

    def fail(self) -> None:
        """Leave the bar where it was."""
        self._progress.update(self._task, failed=True)
        self._progress.stop_task(self._task)


class _PlainBar:
    """A line every quarter of a minute, and one at the end of what took a while."""

    def __init__(self, console: Console, description: str, total: int | None) -> None:
        self._console = console
        self._description = description
        self._total = total
        self._done = self._done_before = 0
        self._figures: dict[str, float | str] = {}
        self._started = self._shown = time.monotonic()

    def advance(self, steps: int = 1, **figures: float | str) -> None:
        self._done += steps
        self._figures.update(figures)
        now = time.monotonic()
        if now - self._started < _AT_ONCE_S:  # an earlier run's steps, that this one goes on from
            self._done_before = self._done
        if now - self._shown >= _PLAIN_EVERY_S and self._done != self._total:
            self._shown = now
            of = f" of {self._total}, {self._left(now)} left" if self._total else ""
            self._print(f"{self._done}{of}")

    def finish(self) -> None:
        took = time.monotonic() - self._started
        if took >= _PLAIN_FROM_S:
            self._print(f"done in {duration(took)}")

    def _left(self, now: float) -> str:
        assert self._total
        done = self._done - self._done_before
        return duration((now - self._started) / done * (self._total - self._done)) if done else "?"

    def _print(self, text: str) -> None:
        figures = _written(self._figures)
        line = f"  {self._description}: {text}" + (f"  {figures}" if figures else "")
        self._console.print(line, markup=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds as "12 s", "4 min" or "1.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _written(figures: dict[str, float | str]) -> str:
    return "  ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items()
    )
