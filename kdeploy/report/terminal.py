"""The final table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from kdeploy.report.columns import AGGREGATE_COLUMNS, COLUMNS, AggregateColumn, Column, best_of
from kdeploy.report.rows import Row
from kdeploy.report.seeds import AggregateRow


def render_table(rows: Sequence[Row]) -> Table:
    """A row a network or engine; the best value of a column is bold green. 100 columns hold it."""
    table = _frame("network · engine", COLUMNS)
    best = [best_of([column.value(row) for row in rows], column.best) for column in COLUMNS]
    for place, row in enumerate(rows):
        cells = [
            _cell(column.text(row), column.note(row), place in winners)
            for column, winners in zip(COLUMNS, best, strict=True)
        ]
        table.add_row(Text(row.name), *cells)
    table.caption = _caption(rows)
    return table


def render_aggregate(rows: Sequence[AggregateRow]) -> Table:
    """A row a network or engine, means over seeds with their 95 % t intervals below them."""
    table = _frame("network · engine", AGGREGATE_COLUMNS)
    best = [best_of([column.value(row) for row in rows], column.best) for column in AGGREGATE_COLUMNS]
    for place, row in enumerate(rows):
        cells = [
            _cell(column.text(row), column.note(row), place in winners, between="\n")
            for column, winners in zip(AGGREGATE_COLUMNS, best, strict=True)
        ]
        table.add_row(Text(row.name), *cells)
    if rows:
        table.caption = escape(f"Means over {rows[0].seeds} seeds; in brackets 95 % t intervals over the seeds.")
    return table


def _frame(first: str, columns: Sequence[Column] | Sequence[AggregateColumn]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0, caption_justify="left")
    table.add_column(first, overflow="fold", min_width=15)
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    return table


def _cell(text: str, note: str, is_best: bool, between: str = " ") -> Text:
    cell = Text(text, style="bold green" if is_best else "")
    if note:
        cell.append(f"{between}{note}", style="not bold dim")
    return cell


def _caption(rows: Sequence[Row]) -> str:
    samples = sorted({row.samples for row in rows if row.samples is not None})
    measured = f"Accuracy on {', '.join(f'{count:,}' for count in samples)} images, " if samples else ""
    text = f"{measured}in brackets its 95 % interval; p50 and p99 in ms at batch 1; n/a: not measured or too few calls."
    return escape(text[0].upper() + text[1:])
