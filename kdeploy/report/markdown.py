"""The final table as Markdown, for files and pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdeploy.report.columns import AGGREGATE_COLUMNS, COLUMNS, best_of, columns_for, heading
from kdeploy.report.emulated import emulated_lines
from kdeploy.report.rows import Row
from kdeploy.report.seeds import AggregateRow


def to_markdown(rows: Sequence[Row]) -> str:
    """A GitHub table of the rows, the best value of a column bold; ends with a newline."""
    return _filled(rows, columns_for(COLUMNS, rows)) + _emulated(rows)


def aggregate_to_markdown(rows: Sequence[AggregateRow]) -> str:
    """The same for means over seeds with their 95 % t intervals."""
    return _filled(rows, columns_for(AGGREGATE_COLUMNS, rows)) + _emulated(rows)


def _emulated(rows: Sequence[Row | AggregateRow]) -> str:
    """Below the table: why figures are missing."""
    return "".join(f"\nEmulated: {_escaped(line)}.\n" for line in emulated_lines(rows))


def _filled(rows: Sequence[Any], columns: Sequence[Any]) -> str:
    """rows and columns: of one kind, `Row` with `Column` or `AggregateRow` with `AggregateColumn`."""
    best = [best_of([column.value(row) for row in rows], column.best) for column in columns]
    body = [
        [_escaped(row.name)]
        + [
            _marked(column.text(row), column.note(row), place in winners)
            for column, winners in zip(columns, best, strict=True)
        ]
        for place, row in enumerate(rows)
    ]
    return _table(["network · engine", *(heading(column.title) for column in columns)], body)


def _marked(text: str, note: str, is_best: bool) -> str:
    figure = f"**{text}**" if is_best else text
    return f"{figure} {note}".rstrip()


def _escaped(text: str) -> str:
    for character in "\\|`*_<>[]":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def _table(titles: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    head = [f"| {' | '.join(titles)} |", f"|:--{'|--:' * (len(titles) - 1)}|"]
    return "\n".join(head + [f"| {' | '.join(cells)} |" for cells in body]) + "\n"
