"""The report of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdeploy import artifacts
from kdeploy.stages.base import Run


class Report:
    """Writes `report.html`."""

    name = "report"

    def inputs(self, run: Run) -> Mapping[str, Any]:
        folders = (
            "bench/*.json",
            "devices/*/bench/*.json",
            "export/*.json",
            "networks/*/*.json*",
            "sensitivity/*.json",
        )
        shown = run.files(*folders, "gates.json", "*.kdz", "recipe.yaml")
        return {str(path.relative_to(run.folder)): artifacts.sha256_file(path) for path in shown}

    def run(self, run: Run) -> Sequence[Path]:
        from kdeploy.report.html import write_report
        from kdeploy.results import report_data

        target = run.folder / "report.html"
        write_report(target, report_data(run.folder))
        return [target]
