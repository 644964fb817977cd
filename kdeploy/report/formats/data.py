"""All that the report shows as JSON, and the schema of that JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from kdeploy.bench.results import Measurement
from kdeploy.report.data import ReportData

_QUANTILES = 101
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def data_of(report: ReportData) -> dict[str, Any]:
    """The report as plain data.

    Raw samples, predictions and per-class accuracies stay in the run's own files; in place of the samples stand
    101 quantiles of them.
    """
    content = report.model_dump(mode="json", exclude={"measurements"})
    content["measurements"] = [_short(one) for one in report.measurements]
    return content


def data_text(report: ReportData, indent: int | None = None) -> str:
    """The same as text."""
    separators = (",", ":") if indent is None else None
    return json.dumps(data_of(report), ensure_ascii=False, separators=separators, indent=indent, allow_nan=False)


def schema() -> dict[str, Any]:
    """The JSON Schema of `data_of`, made from the models that hold the data."""
    found = ReportData.model_json_schema(mode="serialization")
    latency, accuracy = found["$defs"]["Latency"], found["$defs"]["Accuracy"]
    _drop(latency, "samples_ms")
    _drop(accuracy, "predictions", "per_class")
    latency["properties"]["quantiles_ms"] = {
        "type": "array",
        "items": {"type": "number"},
        "description": f"{_QUANTILES} quantiles of the calls, from the fastest to the slowest; empty: no samples",
    }
    latency["required"].append("quantiles_ms")
    return {"$schema": _DIALECT, **found}


def _drop(part: dict[str, Any], *fields: str) -> None:
    for field in fields:
        del part["properties"][field]
        part["required"].remove(field)


def _short(measurement: Measurement) -> dict[str, Any]:
    content = measurement.model_dump(
        mode="json", exclude={"latency": {"__all__": {"samples_ms"}}, "accuracy": {"predictions", "per_class"}}
    )
    for latency, raw in zip(content["latency"], measurement.latency, strict=True):
        quantiles = np.quantile(raw.samples_ms, np.linspace(0, 1, _QUANTILES)) if raw.samples_ms else ()
        latency["quantiles_ms"] = [float(f"{value:.5g}") for value in quantiles]
    return content
