"""The distribution of latencies, from the raw samples, and every latency in figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from kdeploy.bench.results import Measurement
from kdeploy.report.charts import steadiness
from kdeploy.report.data import ReportData
from kdeploy.report.formats.tables import Table
from kdeploy.report.rows import display_name
from kdeploy.report.sections.base import Section, figure
from kdeploy.report.sections.order import in_table_order

_PERCENTILES = ("p50", "p90", "p95", "p99", "p99_9")
"""Of the table: fields of `Latency`."""
_SPANS = ("preprocess", "copies", "inference", "postprocess")
"""The parts of a call: fields of `Spans`, in milliseconds."""


def _content(report: ReportData) -> Mapping[str, Any] | None:
    measured = in_table_order(report)
    drawn = figure(
        "latency-distribution",
        "Distribution of latency",
        steadiness.draw("steadiness-wide", measured, width=1000, narrow=False),
        _distribution(measured),
        steadiness.draw("steadiness-narrow", measured, width=360, narrow=True),
    )
    if drawn is None:
        return None
    engines = [{"name": display_name(one), "one": one} for one in measured]
    timings = [
        {"name": display_name(one), "one": one, "latency": latency} for one in measured for latency in one.latency
    ]
    return {"figure": drawn, "timings": timings, "engines": engines, "percentiles": _PERCENTILES, "spans": _SPANS}


def _distribution(measured: Sequence[Measurement]) -> Table:
    """What is drawn: the share of calls in each bin of the axis, by engine."""
    ridges = steadiness.ridges_of(measured)
    bins = steadiness.bins_of(ridges)
    names = tuple(f"{ridge.name}: share of calls" for ridge in ridges)
    shares = [steadiness.shares(ridge.relative, bins) for ridge in ridges]
    lines = (
        (float(f"{low:.5g}"), float(f"{high:.5g}"), *(float(f"{share[place]:.5g}") for share in shares))
        for place, (low, high) in enumerate(pairwise(bins))
    )
    return Table(("from_times_median", "to_times_median", *names), tuple(lines))


SECTION = Section("steadiness", "How steady the latency is", _content)
