"""What was measured, shown: rows, the terminal table, Markdown, and one self-contained HTML file."""

from kdeploy.report.data import Epoch, Gate, ReportData, Stage
from kdeploy.report.html import write_report
from kdeploy.report.markdown import aggregate_to_markdown, to_markdown
from kdeploy.report.rows import Row, rows_from
from kdeploy.report.seeds import AggregateRow, accuracy_gain, aggregate
from kdeploy.report.terminal import AggregateTable, ResultTable

__all__ = [
    "AggregateRow",
    "AggregateTable",
    "Epoch",
    "Gate",
    "ReportData",
    "ResultTable",
    "Row",
    "Stage",
    "accuracy_gain",
    "aggregate",
    "aggregate_to_markdown",
    "rows_from",
    "to_markdown",
    "write_report",
]
