"""What the procedure has to say of its networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdeploy.report.data import ReportData
from kdeploy.report.sections.base import Section


def _content(report: ReportData) -> Mapping[str, Any] | None:
    return {} if report.notes else None


SECTION = Section("notes", "To know of these networks", _content)
