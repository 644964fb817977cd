"""Time by layer, from the engines' own profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdeploy.bench.results import LayerTime
from kdeploy.report.charts import layers
from kdeploy.report.data import ReportData
from kdeploy.report.formats.tables import Table
from kdeploy.report.rows import display_name
from kdeploy.report.sections.base import Section, figure
from kdeploy.report.sections.order import in_table_order

_LINES = 30
"""Of the table on the page, in all."""


def _content(report: ReportData) -> Mapping[str, Any] | None:
    measured = [one for one in in_table_order(report) if one.layers]
    names = {one.name: display_name(one) for one in measured}
    shown = layers.shown(measured)
    drawn = figure(
        "layers",
        "Time by layer",
        layers.draw("layers-wide", measured, width=1000, narrow=False),
        _table({names[key]: found for key, found in shown.items()}),
        layers.draw("layers-narrow", measured, width=360, narrow=True),
    )
    if drawn is None:
        return None
    each = max(_LINES // len(measured), 5)
    slowest = [
        (names[key], layer)
        for key, found in shown.items()
        for layer in sorted(found, key=lambda one: -one.share)[:each]
    ]
    return {"figure": drawn, "lines": slowest, "total": sum(len(one.layers or ()) for one in measured)}


def _table(shown: Mapping[str, Sequence[LayerTime]]) -> Table:
    """What is drawn, in the order of computation."""
    lines = (
        (name, layer.name, layer.operator, layer.median_us, layer.share)
        for name, found in shown.items()
        for layer in found
    )
    return Table(("engine", "layer", "operator", "median_us", "share"), tuple(lines))


SECTION = Section("layers", "Time by layer", _content)
