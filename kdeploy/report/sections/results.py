"""The table that sorts: a row a network or engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdeploy.bench.results import Measurement
from kdeploy.report.charts import layers
from kdeploy.report.columns import COLUMNS, best_of, columns_for
from kdeploy.report.data import ReportData
from kdeploy.report.described import described
from kdeploy.report.formats.data import data_text
from kdeploy.report.formats.tables import results_to_csv
from kdeploy.report.headline import shipped_rows
from kdeploy.report.sections.base import Section, data_address
from kdeploy.report.sections.marks import marks


def _content(report: ReportData) -> Mapping[str, Any]:
    columns = columns_for(COLUMNS, report.rows)
    return {
        "columns": columns,
        "best": [best_of([column.value(row) for row in report.rows], column.best) for column in columns],
        "shipped": shipped_rows(report),
        "marks": marks(report.rows),
        "measured_on": measured_on(report.measurements),
        "json": data_address("application/json", data_text(_with_shown_layers(report))),
        "csv": data_address("text/csv", results_to_csv({report.seed: report.rows})),
        "warnings": list(dict.fromkeys(warning for row in report.rows for warning in row.warnings)),
    }


def _with_shown_layers(report: ReportData) -> ReportData:
    """A network has hundreds of layers, a page little room: those that its figure shows."""
    profiled = [one for one in report.measurements if one.layers]
    found = layers.shown(profiled)
    thinned = (one.model_copy(update={"layers": found.get(one.name, one.layers)}) for one in report.measurements)
    return report.model_copy(update={"measurements": tuple(thinned)})


def measured_on(measurements: Sequence[Measurement]) -> str:
    """The machines and threads behind the figures: "Intel Xeon, 1 thread"."""
    places = []
    for one in measurements:
        processor = described(one.machine.get("processor"))
        place = f"{processor}, {one.threads} thread{'s' if one.threads != 1 else ''}"
        if place not in places:
            places.append(place)
    return "; ".join(places)


SECTION = Section("results", "Results", _content)
