"""Means over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdeploy.report.columns import AGGREGATE_COLUMNS, best_of, columns_for
from kdeploy.report.data import ReportData
from kdeploy.report.headline import shipped_rows
from kdeploy.report.sections.base import Section
from kdeploy.report.sections.marks import marks


def _content(report: ReportData) -> Mapping[str, Any] | None:
    if not report.seeds:
        return None
    columns = columns_for(AGGREGATE_COLUMNS, report.seeds)
    return {
        "columns": columns,
        "best": [best_of([column.value(row) for row in report.seeds], column.best) for column in columns],
        "shipped": shipped_rows(report),
        "marks": marks(report.rows),
    }


SECTION = Section("seeds", "Over seeds", _content)
