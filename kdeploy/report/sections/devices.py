"""What was measured on other machines: a table each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdeploy.report.columns import COLUMNS, best_of, columns_for
from kdeploy.report.data import Device, ReportData
from kdeploy.report.described import described
from kdeploy.report.formats.tables import results_to_csv
from kdeploy.report.sections.base import Section, data_address
from kdeploy.report.sections.marks import marks


def _content(report: ReportData) -> Mapping[str, Any] | None:
    if not report.devices:
        return None
    return {"devices": [_table(device, report.seed) for device in report.devices]}


def _table(device: Device, seed: int) -> dict[str, Any]:
    columns = columns_for(COLUMNS, device.rows)
    best = [best_of([column.value(row) for row in device.rows], column.best) for column in columns]
    return {
        "device": device,
        "where": described(device.machine.get("board") or device.machine.get("processor")),
        "emulated": device.machine.get("emulation"),
        "columns": columns,
        "best": best,
        "marks": marks(device.rows),
        "csv": data_address("text/csv", results_to_csv({seed: device.rows})),
    }


SECTION = Section("devices", "On other machines", _content)
