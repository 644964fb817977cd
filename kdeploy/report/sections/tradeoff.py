"""Accuracy against latency, size and memory, with the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdeploy.report.charts import tradeoff
from kdeploy.report.charts.costs import COSTS, Cost
from kdeploy.report.data import ReportData
from kdeploy.report.formats.tables import Table
from kdeploy.report.rows import Row
from kdeploy.report.sections.base import Figure, Section, figure
from kdeploy.report.sections.marks import shapes

_HEIGHT, _NARROW_HEIGHT = 440.0, 420.0


def _content(report: ReportData) -> Mapping[str, Any] | None:
    found = [drawn for cost in COSTS if (drawn := _figure(report.rows, cost)) is not None]
    return {"figures": found, "shapes": shapes(report.rows)} if found else None


def _figure(rows: Sequence[Row], cost: Cost) -> Figure | None:
    name = f"accuracy-{cost.name}"
    return figure(
        name,
        f"Accuracy against {cost.name}",
        tradeoff.draw(f"{name}-wide", rows, cost, width=1000, height=_HEIGHT, narrow=False),
        _table(rows, cost),
        tradeoff.draw(f"{name}-narrow", rows, cost, width=360, height=_NARROW_HEIGHT, narrow=True),
    )


def _table(rows: Sequence[Row], cost: Cost) -> Table:
    shown = [row for row in rows if row.accuracy is not None and cost.of(row) is not None]
    front = tradeoff.pareto(shown, cost)
    lines = (
        (row.key, row.name, cost.of(row), row.accuracy, row.accuracy_low, row.accuracy_high, row in front)
        for row in shown
    )
    titles = ("key", "name", cost.field, "accuracy", "accuracy_low", "accuracy_high", "on_pareto_front")
    return Table(titles, tuple(lines))


SECTION = Section("tradeoff", "Accuracy against its price", _content)
