"""The signs of rows: the same in charts, tables and keys."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from kdeploy.report.charts import tradeoff
from kdeploy.report.charts.svg import Element, markup
from kdeploy.report.rows import Row


def marks(rows: Sequence[Row]) -> dict[str, Markup]:
    """By the row's key."""
    return {row.key: _sign(row) for row in rows}


def shapes(rows: Sequence[Row]) -> dict[str, Markup]:
    """What each shape among these rows means, with the shape in the colour of no network."""
    found: dict[str, Markup] = {}
    for row in rows:
        found.setdefault(tradeoff.shape(row), _sign(row.model_copy(update={"role": ""})))
    return found


def _sign(row: Row) -> Markup:
    root = Element("svg", {"viewBox": "0 0 18 18", "class": "sign", "aria-hidden": "true"})
    tradeoff.mark(root, row, 9, 9)
    return markup(root)
