"""What each engine takes up: bytes as shipped and compressed, memory, and energy where the machine can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdeploy.bench.results import Measurement
from kdeploy.report import energy
from kdeploy.report.data import ReportData
from kdeploy.report.formats.tables import Table, to_csv
from kdeploy.report.rows import display_name
from kdeploy.report.sections.base import Section, data_address
from kdeploy.report.sections.order import in_table_order


def _content(report: ReportData) -> Mapping[str, Any] | None:
    measured = in_table_order(report)
    if all(one.memory is None and one.compressed_bytes is None for one in measured):
        return None
    meters = list(dict.fromkeys(name for one in measured for name in energy.meters_of(one)))
    return {
        "lines": [{"name": display_name(one), "one": one, "meters": energy.meters_of(one)} for one in measured],
        "gpu": any(one.memory is not None and one.memory.gpu_bytes is not None for one in measured),
        "meters": meters,
        "covers": {name: meter.covers for one in measured for name, meter in energy.meters_of(one).items()},
        "absent": energy.absent(measured),
        "csv": data_address("text/csv", to_csv(_table(measured, meters))),
    }


def _table(measured: Sequence[Measurement], meters: Sequence[str]) -> Table:
    sizes = ("size_bytes", "compressed_bytes", "memory_peak_bytes", "memory_runtime_bytes", "memory_gpu_bytes")
    energies = tuple(f"{name}: {kind}joules_per_inference" for name in meters for kind in ("", "net_"))
    return Table(("name", *sizes, *energies), tuple(_line(one, meters) for one in measured))


def _line(one: Measurement, meters: Sequence[str]) -> tuple[Any, ...]:
    memory, found = one.memory, energy.meters_of(one)
    cells: list[Any] = [display_name(one), one.size_bytes, one.compressed_bytes]
    cells += [None] * 3 if memory is None else [memory.peak_bytes, memory.runtime_bytes, memory.gpu_bytes]
    for name in meters:
        meter = found.get(name)
        net = None if meter is None else meter.net_joules_per_inference
        cells += [None if meter is None else meter.joules_per_inference.value, None if net is None else net.value]
    return tuple(cells)


SECTION = Section("footprint", "What it takes up", _content)
