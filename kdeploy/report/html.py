"""One self-contained HTML file: no network, no library, nothing that a reader has to trust."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from kdeploy.artifacts import write_text
from kdeploy.bench.results import Measurement
from kdeploy.report import figures
from kdeploy.report.charts import steadiness, tradeoff, training
from kdeploy.report.charts.svg import Element, markup
from kdeploy.report.columns import AGGREGATE_COLUMNS, COLUMNS, best_of, columns_for, heading
from kdeploy.report.data import ReportData
from kdeploy.report.headline import headlines, shipped_rows
from kdeploy.report.rows import Row

_QUANTILES = 101


def write_report(target: Path, report: ReportData) -> None:
    """Write the report, whole or not at all. Every name in it is escaped; a content security policy backs that up."""
    write_text(target, render(report))


def render(report: ReportData) -> str:
    """The report's HTML."""
    script = _packaged("report.js")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kdeploy.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": figures.percent,
        "significant": figures.significant,
        "seconds": figures.seconds,
        "described": described,
        "heading": heading,
    }
    columns, seed_columns = columns_for(COLUMNS, report.rows), columns_for(AGGREGATE_COLUMNS, report.seeds)
    return environment.get_template("report.html.j2").render(
        report=report,
        headlines=headlines(report),
        shipped=shipped_rows(report),
        columns=columns,
        best=[best_of([column.value(row) for row in report.rows], column.best) for column in columns],
        seed_columns=seed_columns,
        seed_best=[best_of([column.value(row) for row in report.seeds], column.best) for column in seed_columns],
        charts=_charts(report),
        marks={row.key: _mark(row) for row in report.rows},
        family=tradeoff.family,
        measured_on=measured_on(report.measurements),
        downloads=_downloads(report),
        style=Markup(_packaged("report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def described(value: Any) -> str:
    """A value of the machine's description as text; nested ones in one line."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return figures.significant(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {described(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(described(inner) for inner in value) or "none"
    return str(value)


def measured_on(measurements: Sequence[Measurement]) -> str:
    """The machines and threads behind the figures: "Intel Xeon, 1 thread"."""
    places = []
    for one in measurements:
        processor = described(one.machine.get("processor"))
        place = f"{processor}, {one.threads} thread{'s' if one.threads != 1 else ''}"
        if place not in places:
            places.append(place)
    return "; ".join(places)


def data_of(report: ReportData) -> dict[str, Any]:
    """The report as plain data, for the download link.

    Raw samples, predictions and per-class accuracies stay in the run's own files; in place of the samples stand
    101 quantiles of them.
    """
    content = report.model_dump(mode="json", exclude={"measurements"})
    content["measurements"] = [_short(one) for one in report.measurements]
    return content


def _short(measurement: Measurement) -> dict[str, Any]:
    content = measurement.model_dump(
        mode="json", exclude={"latency": {"__all__": {"samples_ms"}}, "accuracy": {"predictions", "per_class"}}
    )
    for latency, raw in zip(content["latency"], measurement.latency, strict=True):
        quantiles = np.quantile(raw.samples_ms, np.linspace(0, 1, _QUANTILES)) if raw.samples_ms else ()
        latency["quantiles_ms"] = [float(f"{value:.5g}") for value in quantiles]
    return content


def _charts(report: ReportData) -> dict[str, Markup | None]:
    """Charts that hold text come twice, for wide and for narrow screens, so that the text keeps its size."""
    ordered = {one.name: one for one in report.measurements}
    in_table_order = [ordered[row.key] for row in report.rows if row.key in ordered]
    return {
        "tradeoff_wide": tradeoff.draw("tradeoff-wide", report.rows, width=1000, height=440, narrow=False),
        "tradeoff_narrow": tradeoff.draw("tradeoff-narrow", report.rows, width=360, height=420, narrow=True),
        "steadiness_wide": steadiness.draw("steadiness-wide", in_table_order, width=1000, narrow=False),
        "steadiness_narrow": steadiness.draw("steadiness-narrow", in_table_order, width=360, narrow=True),
        "accuracy": training.accuracy("curve-accuracy", report.curves),
        "loss": training.loss("curve-loss", report.curves),
        "rate": training.rate("curve-rate", report.curves),
    }


def _mark(row: Row) -> Markup:
    """The row's sign in the chart, to stand before its name in the table."""
    root = Element("svg", {"viewBox": "0 0 18 18", "class": "sign", "aria-hidden": "true"})
    tradeoff.mark(root, row, 9, 9)
    return markup(root)


def _downloads(report: ReportData) -> dict[str, str]:
    """Data as `data:` addresses: all of it as JSON, the table as CSV."""
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(Row.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.model_dump() for row in report.rows)
    text = json.dumps(data_of(report), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return {"json": _data_uri("application/json", text), "csv": _data_uri("text/csv", table.getvalue())}


def _data_uri(kind: str, text: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(text.encode()).decode()}"


def _packaged(name: str) -> str:
    return (resources.files("kdeploy.report") / "templates" / name).read_text(encoding="utf-8")
