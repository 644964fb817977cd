"""What is plainly said of rows whose processor was emulated."""

from __future__ import annotations

from collections.abc import Sequence

from kdeploy.report.rows import Row
from kdeploy.report.seeds import AggregateRow


def emulated_lines(rows: Sequence[Row | AggregateRow]) -> list[str]:
    """A line for each emulator, which names its rows where others ran on something else."""
    by_emulator: dict[str, list[Row | AggregateRow]] = {}
    for row in rows:
        if row.emulated is not None:
            by_emulator.setdefault(row.emulated, []).append(row)
    return [_line(by, found, alone=len(found) == len(rows)) for by, found in by_emulator.items()]


def _line(by: str, rows: Sequence[Row | AggregateRow], *, alone: bool) -> str:
    whose = "" if alone else f" ({', '.join(row.name for row in rows)})"
    right = "accuracy and size are" if any(row.accuracy is not None for row in rows) else "size is"
    return f"{by}{whose}: latency, energy and memory are not measured; {right} true"
