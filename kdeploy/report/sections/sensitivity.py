"""What int8 costs in each layer alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdeploy.report.charts import sensitivity
from kdeploy.report.data import LayerCost, ReportData, Sensitivity
from kdeploy.report.formats.tables import Table
from kdeploy.report.sections.base import Figure, Section

_FIELDS = tuple(LayerCost.model_fields)


def _content(report: ReportData) -> Mapping[str, Any] | None:
    figures = [_figure(place, one) for place, one in enumerate(report.sensitivity, start=1) if one.layers]
    return {"figures": figures, "kept": any(one.kept_float32 for one in report.sensitivity)} if figures else None


def _figure(place: int, one: Sensitivity) -> Figure:
    name = f"sensitivity-{place}"
    wide, narrow = (
        sensitivity.draw(f"{name}-{kind}", one.layers, title=one.name, kept=one.kept_float32, width=width, narrow=small)
        for kind, width, small in (("wide", 1000, False), ("narrow", 360, True))
    )
    lines = ((*(getattr(cost, field) for field in _FIELDS), cost.layer in one.kept_float32) for cost in one.layers)
    return Figure(name, f"Sensitivity of {one.name}", wide, Table((*_FIELDS, "kept_float32"), tuple(lines)), narrow)


SECTION = Section("sensitivity", "What int8 costs, layer by layer", _content)
