"""What `kdeploy bench` measured, in the format that the ending of a file names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from kdeploy.artifacts import write_text
from kdeploy.bench.results import Measurement
from kdeploy.errors import UserError
from kdeploy.report.formats.dashboard import dashboard
from kdeploy.report.formats.tables import rows_to_csv
from kdeploy.report.markdown import to_markdown
from kdeploy.report.rows import Row

ENDINGS = (".csv", ".md", ".dashboard.json", ".schema.json")


def check_ending(target: Path) -> None:
    """Raise a UserError for a file of another format."""
    if not target.name.endswith(ENDINGS):
        raise UserError(f"{target}: what was measured is saved in a file ending in {', '.join(ENDINGS)}.")


def write_measured(target: Path, measured: Sequence[Measurement], rows: Sequence[Row]) -> None:
    """Write the file whole, or not at all. rows: the table's."""
    check_ending(target)
    write_text(target, _text(target.name, measured, rows))


def _text(name: str, measured: Sequence[Measurement], rows: Sequence[Row]) -> str:
    if name.endswith(".csv"):
        return rows_to_csv(rows)
    if name.endswith(".md"):
        return to_markdown(rows)
    content = Measurement.model_json_schema() if name.endswith(".schema.json") else dashboard(measured)
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
