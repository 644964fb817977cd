"""What tables and reports show where the processor was emulated."""

from __future__ import annotations

import csv
import io
import json

import jsonschema
import pytest
from rich.console import Console

from kdeploy.bench.results import Verdict
from kdeploy.report import calls, energy
from kdeploy.report.emulated import emulated_lines
from kdeploy.report.formats.dashboard import dashboard
from kdeploy.report.formats.data import data_of, schema
from kdeploy.report.formats.tables import rows_to_csv
from kdeploy.report.html import render
from kdeploy.report.markdown import aggregate_to_markdown, to_markdown
from kdeploy.report.rows import rows_from
from kdeploy.report.seeds import aggregate
from kdeploy.report.terminal import AggregateTable, ResultTable
from tests.report.example import measurements, report

BY = "qemu-aarch64-static on a processor of the x86 family"
SAID = f"{BY}: latency, energy and memory are not measured; accuracy and size are true"
UNTIMED = {
    "emulated": BY,
    "latency": (),
    "load_ms": None,
    "first_inference_ms": None,
    "verdict": Verdict(valid=None, reasons=(), warnings=()),
}


def emulated():
    return [one.model_copy(update=UNTIMED) for one in measurements()]


@pytest.fixture
def rows():
    return rows_from(emulated(), baseline="teacher-pytorch-float32")


@pytest.fixture
def shown(rows):
    """A report of nothing but emulated engines."""
    return report(measurements=tuple(emulated()), rows=tuple(rows))


def printed(table) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(table)
    return " ".join(console.file.getvalue().split())


def test_a_row_has_accuracy_and_size_and_no_time(rows):
    for row in rows:
        assert (row.p50_ms, row.p99_ms, row.latency_ratio, row.memory_bytes, row.valid) == (None,) * 5
        assert row.accuracy is not None
        assert row.size_ratio is not None
        assert row.emulated == BY


def test_the_terminal_says_so_below_the_table(rows):
    text = printed(ResultTable(rows))
    assert f"emulated {SAID}" in text
    assert "INVALID" not in text
    assert " n/a n/a n/a " in text
    assert "emulated" in printed(AggregateTable(aggregate([rows, rows])))
    assert "emulated" not in printed(ResultTable(rows_from(measurements(), baseline="teacher-pytorch-float32")))


def test_rows_are_named_where_others_are_real(rows):
    real = rows_from(measurements(), baseline="teacher-pytorch-float32")
    (line,) = emulated_lines([*real[:-1], rows[-1]])
    assert line.startswith(f"{BY} (student · ONNX Runtime int8): latency")


def test_without_accuracy_nothing_is_said_of_it(rows):
    (line,) = emulated_lines([rows[0].model_copy(update={"accuracy": None})])
    assert line.endswith("not measured; size is true")


def test_no_line_of_calls_or_energy():
    assert calls.lines(emulated()) == []
    assert energy.lines(emulated()) == []


def test_markdown_says_so_below_the_table(rows):
    assert to_markdown(rows).rstrip().endswith(f"Emulated: {SAID}.")
    assert "Emulated: " in aggregate_to_markdown(aggregate([rows, rows]))


def test_the_page_says_so_first_and_marks_the_rows(shown):
    text = render(shown)
    assert SAID in text
    assert text.count('<span class="tag">emulated</span>') == len(shown.rows)
    assert "How steady the latency is" not in text
    assert "accuracy-latency" not in text
    assert "accuracy-size" in text
    assert "Emulated processor" not in render(report())


def test_a_page_of_both_shows_no_figure_of_the_emulated():
    both = [one.model_copy(update=UNTIMED) if one.precision == "int8" else one for one in measurements()]
    rows = tuple(rows_from(both, baseline="teacher-pytorch-float32"))
    text = render(report(measurements=tuple(both), rows=rows))
    assert text.count('<span class="tag">emulated</span>') == 1
    assert "How steady the latency is" in text


def test_formats_for_others_have_no_figure_there(shown, rows):
    assert {one["unit"] for one in dashboard(shown.measurements)} == {"bytes", "%"}
    content = json.loads(json.dumps(data_of(shown)))
    jsonschema.validate(content, schema())
    assert {one["emulated"] for one in content["measurements"]} == {BY}
    (first, *_) = csv.DictReader(io.StringIO(rows_to_csv(rows)))
    assert (first["emulated"], first["p50_ms"], first["valid"]) == (BY, "", "")
