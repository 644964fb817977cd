"""Gates and parity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdeploy.report.data import ReportData
from kdeploy.report.formats.tables import Table, to_csv
from kdeploy.report.sections.base import Section, data_address

_PARITY = ("relative_difference", "cosine_similarity", "top1_agreement", "samples", "tolerance", "passed")


def _content(report: ReportData) -> Mapping[str, Any] | None:
    if not report.gates and not report.parity:
        return None
    lines = ((file, *(getattr(one, field) for field in _PARITY)) for file, one in report.parity.items())
    return {"csv": data_address("text/csv", to_csv(Table(("file", *_PARITY), tuple(lines))))}


SECTION = Section("checks", "Checks", _content)
