"""What an engine takes up, in the report and in the terminal's lines."""

from __future__ import annotations

import base64
import csv
import io

import pytest

from kdeploy.bench.energy.results import Energy, Estimate, Idle, MeterEnergy, Sampling
from kdeploy.report import energy
from kdeploy.report.html import render
from kdeploy.report.sections.footprint import SECTION
from tests.report.example import measurements, whole_report

SAMPLING = Sampling(period_s=0.1, rounds=100, cpu_share=0.001, reading_ms={"rapl package-0": 0.2})
ABSENT = Energy(meters=(), absent={"rapl": "no zone here", "nvml": "no driver is loaded"}, sampling=SAMPLING)


def metered(net: Estimate | None) -> Energy:
    meter = MeterEnergy(
        name="rapl package-0",
        scope="package",
        covers="the processor, without memory",
        kind="counter",
        joules=1.2,
        seconds=10.0,
        readings=100,
        inferences=1000,
        idle=None if net is None else Idle(watts=0.02, seconds=10.0, readings=100),
        idle_absent="the machine was not measured at rest" if net is None else None,
        joules_per_inference=Estimate(value=0.0012, low=0.0011, high=0.0013),
        net_joules_per_inference=net,
    )
    return Energy(meters=(meter,), absent={"nvml": "no driver is loaded"}, sampling=SAMPLING)


def with_energy(found, spent: Energy | None):
    return found.model_copy(
        update={"latency": tuple(one.model_copy(update={"energy": spent}) for one in found.latency)}
    )


@pytest.fixture
def report():
    whole = whole_report()
    sized = (one.model_copy(update={"compressed_bytes": one.size_bytes - 1000}) for one in whole.measurements)
    return whole.model_copy(update={"measurements": tuple(sized)})


def spending(report, spent):
    return report.model_copy(update={"measurements": tuple(with_energy(one, spent) for one in report.measurements)})


def test_the_page_has_bytes_memory_and_what_is_above_the_runtime(report):
    page = render(report)
    assert "What it takes up" in page
    assert f'data-value="{38_912 - 1000}"' in page
    student = next(one for one in report.measurements if one.name == "student-onnxruntime-int8")
    assert f'data-value="{student.memory.peak_bytes - student.memory.runtime_bytes}"' in page
    assert "GPU memory" not in page


def test_energy_stands_there_gross_and_net_with_intervals(report):
    page = render(spending(report, metered(Estimate(value=0.0009, low=0.0008, high=0.001))))
    assert "1.20<small>[1.10, 1.30]</small>" in page
    assert "0.900<small>[0.800, 1.00]</small>" in page
    assert "the processor, without memory" in page


def test_without_a_meter_the_page_says_why(report):
    assert "Energy is not measured: rapl: no zone here; nvml: no driver is loaded." in render(spending(report, ABSENT))


def test_the_csv_has_plain_numbers(report):
    content = SECTION.content(spending(report, metered(None)))
    lines = list(csv.DictReader(io.StringIO(base64.b64decode(content["csv"].partition("base64,")[2]).decode())))
    assert len(lines) == len(report.rows)
    assert {line["rapl package-0: joules_per_inference"] for line in lines} == {"0.0012"}
    assert {line["rapl package-0: net_joules_per_inference"] for line in lines} == {""}
    assert {line["memory_runtime_bytes"] for line in lines} == {str(48 * 2**20)}


def test_an_older_measurement_has_no_such_section():
    assert SECTION.content(whole_report(measurements=measurements())) is None


def test_the_terminal_has_a_line_for_each_engine_and_meter():
    net = Estimate(value=0.0009, low=0.0008, high=0.001)
    first, second = measurements()[:2]
    assert energy.lines([with_energy(first, metered(net)), with_energy(second, metered(None))]) == [
        "student · ONNX Runtime int8: 1.20 mJ [1.10, 1.30] an image by rapl package-0 (package), "
        "0.900 mJ [0.800, 1.00] with idle taken off.",
        "student · ONNX Runtime float32: 1.20 mJ [1.10, 1.30] an image by rapl package-0 (package), "
        "idle not taken off: the machine was not measured at rest.",
    ]


def test_the_terminal_says_once_why_there_is_none():
    found = [with_energy(one, ABSENT) for one in measurements()]
    assert energy.lines(found) == ["Energy is not measured: rapl: no zone here; nvml: no driver is loaded."]
    assert energy.lines(measurements()) == []
