"""The final table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from kdeploy.report.columns import AGGREGATE_COLUMNS, COLUMNS, MEMORY, NLL, AnyColumn, best_of, columns_for
from kdeploy.report.emulated import emulated_lines
from kdeploy.report.rows import Row
from kdeploy.report.seeds import AggregateRow

_BESIDE = ("accuracy",)
"""Columns whose interval stands beside the figure where there is room; those of the others stand below."""
_WIDE = 100
"""Narrower terminals get the intervals below the accuracies."""
_MEDIUM = 90
"""Still narrower ones are not shown these columns, which the report has."""
_LEFT_OUT_FIRST = ("agrees", "smaller")
_LIKELIHOOD, _MEMORY = 13, 9
"""What the columns of likelihood and calibration, and that of memory, take up in the tables that have them."""
_NARROW = 80
"""With less for the others in such a table, these two are left out as well."""
_LEFT_OUT_THEN = ("params", "MACs")


class ResultTable:
    """A row a network or engine; the best value of a column is bold green. 80 columns hold it."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns, width = _fitting(columns_for(COLUMNS, self.rows), options.max_width)
        yield _table(self.rows, columns, " " if width >= _WIDE else "\n", _caption(self.rows))
        yield from _verdicts(self.rows)
        yield from _emulated(self.rows)


class AggregateTable:
    """A row a network or engine, means over seeds with their 95 % t intervals below them."""

    def __init__(self, rows: Sequence[AggregateRow]) -> None:
        self.rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns, _ = _fitting(columns_for(AGGREGATE_COLUMNS, self.rows), options.max_width)
        caption = f"Means over {self.rows[0].seeds} seeds; in brackets 95 % t intervals over the seeds."
        yield _table(self.rows, columns, "\n", escape(caption))
        yield from _emulated(self.rows)


def _fitting(columns: Sequence[AnyColumn], width: int) -> tuple[list[AnyColumn], int]:
    """The columns that a terminal has room for, and its width without those that only some tables have."""
    titles = {column.title for column in columns}
    extra = _LIKELIHOOD * (NLL in titles) + _MEMORY * (MEMORY in titles)
    rest = width - extra
    left_out: tuple[str, ...] = _LEFT_OUT_FIRST if rest < _MEDIUM else ()
    if extra and rest < _NARROW:
        left_out += _LEFT_OUT_THEN
    return [column for column in columns if column.title not in left_out], rest


def _verdicts(rows: Sequence[Row]) -> Iterator[Text]:
    """Under the table: which measurements are not to be believed and why, and the warnings of all."""
    for row in rows:
        if row.valid is False:
            yield Text.assemble(("INVALID ", "bold red"), f"{row.name}: {'; '.join(row.reasons)}")
    unread = list(dict.fromkeys(warning for row in rows for warning in row.warnings))
    if unread:
        yield Text.assemble(("warning ", "bold yellow"), "; ".join(unread))


def _emulated(rows: Sequence[Row | AggregateRow]) -> Iterator[Text]:
    """Why figures are missing."""
    for line in emulated_lines(rows):
        yield Text.assemble(("emulated ", "bold yellow"), line)


def _table(rows: Sequence[Any], columns: Sequence[Any], between: str, caption: str) -> Table:
    """rows and columns: of one kind, `Row` with `Column` or `AggregateRow` with `AggregateColumn`."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0, caption_justify="left")
    table.add_column("network · engine", overflow="fold", min_width=15)
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    best = [best_of([column.value(row) for row in rows], column.best) for column in columns]
    for place, row in enumerate(rows):
        cells = [
            _cell(column.text(row), column.note(row), place in winners, between if column.title in _BESIDE else "\n")
            for column, winners in zip(columns, best, strict=True)
        ]
        table.add_row(Text(row.name), *cells)
    table.caption = caption
    return table


def _cell(text: str, note: str, is_best: bool, between: str) -> Text:
    cell = Text(text, style="bold green" if is_best else "")
    if note:
        cell.append(f"{between}{note}", style="not bold dim")
    return cell


def _caption(rows: Sequence[Row]) -> str:
    samples = sorted({row.samples for row in rows if row.samples is not None})
    counts = ", ".join(f"{count:,}" for count in samples)
    measured = f"Accuracy on {counts} images, in brackets its 95 % interval; " if samples else ""
    text = (
        f"{measured}p50 and p99 in ms at batch 1, below them their 99 % intervals; n/a: not measured or too few calls."
    )
    return escape(text)
