"""Measurements in the order of the table."""

from __future__ import annotations

from kdeploy.bench.results import Measurement
from kdeploy.report.data import ReportData


def in_table_order(report: ReportData) -> list[Measurement]:
    """The measurement of each row, those without a row left out."""
    by_name = {one.name: one for one in report.measurements}
    return [by_name[row.key] for row in report.rows if row.key in by_name]
