"""What was made from what, by hash, and on which machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdeploy.report.charts import lineage
from kdeploy.report.data import ReportData
from kdeploy.report.formats.tables import Table
from kdeploy.report.sections.base import Section, figure


def _content(report: ReportData) -> Mapping[str, Any]:
    numbers = {made.file: place for place, made in enumerate(report.lineage, start=1)}
    titles = ("name", "file", "sha256", "stage", "made_from", "ships")
    lines = (
        (made.name, made.file, made.sha256, made.stage, "; ".join(made.made_from), made.ships)
        for made in report.lineage
    )
    drawn = figure(
        "provenance",
        "From teacher to engine, by hash",
        lineage.draw("lineage", report.lineage),
        Table(titles, tuple(lines)),
    )
    return {"figure": drawn, "numbers": numbers}


SECTION = Section("provenance", "Where it comes from", _content)
