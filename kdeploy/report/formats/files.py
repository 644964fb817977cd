"""A report in the format that the ending of its file names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from kdeploy.artifacts import write_text
from kdeploy.errors import UserError
from kdeploy.report.data import ReportData
from kdeploy.report.formats.dashboard import dashboard
from kdeploy.report.formats.data import data_text, schema
from kdeploy.report.formats.tables import results_to_csv
from kdeploy.report.html import render
from kdeploy.report.markdown_page import page
from kdeploy.report.rows import Row

ENDINGS = (".html", ".md", ".csv", ".dashboard.json", ".schema.json", ".json")
"""Those that end in one another stand before it."""


def ending_of(target: Path) -> str:
    """Which of `ENDINGS` a file has. Raises a UserError for another."""
    found = next((ending for ending in ENDINGS if target.name.endswith(ending)), None)
    if found is None:
        raise UserError(f"{target}: a report is a file ending in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}.")
    return found


def write(target: Path, report: ReportData, per_seed: Mapping[int, Sequence[Row]]) -> None:
    """Write the file whole, or not at all.

    `.html` the page; `.md` its tables; `.csv` the rows of each seed; `.json` all its data; `.schema.json` the JSON
    Schema of that; `.dashboard.json` the figures of the report's own seed for continuous-benchmark dashboards.
    """
    write_text(target, _text(ending_of(target), report, per_seed))


def _text(ending: str, report: ReportData, per_seed: Mapping[int, Sequence[Row]]) -> str:
    if ending == ".html":
        return render(report)
    if ending == ".md":
        return page(report, per_seed)
    if ending == ".csv":
        return results_to_csv(per_seed)
    if ending == ".json":
        return data_text(report, indent=2) + "\n"
    content = schema() if ending == ".schema.json" else dashboard(report.measurements, report.title)
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
