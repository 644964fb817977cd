"""Tables as CSV (RFC 4180, lines ending in a bare newline)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdeploy.report.rows import Row


@dataclass(frozen=True)
class Table:
    """The data behind a figure: titles with units, and rows of plain values; None: an empty cell."""

    titles: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def to_csv(table: Table) -> str:
    """The table with its titles in the first line. Floats are written so that reading them gives the same number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.titles)
    writer.writerows(table.rows)
    return text.getvalue()


def results_to_csv(per_seed: Mapping[int, Sequence[Row]]) -> str:
    """The final table, a line a row of each seed; the columns are `seed` and the fields of `Row`."""
    fields = tuple(Row.model_fields)
    lines = ((seed, *_cells(row, fields)) for seed, rows in per_seed.items() for row in rows)
    return to_csv(Table(("seed", *fields), tuple(lines)))


def rows_to_csv(rows: Sequence[Row]) -> str:
    """The table of what was measured outside of a run; the columns are the fields of `Row`."""
    fields = tuple(Row.model_fields)
    return to_csv(Table(fields, tuple(_cells(row, fields) for row in rows)))


def _cells(row: Row, fields: Iterable[str]) -> tuple[Any, ...]:
    values = (getattr(row, field) for field in fields)
    return tuple("; ".join(value) if isinstance(value, tuple) else value for value in values)
