from __future__ import annotations

import io

import pytest
from rich.console import Console

from kdeploy.report.columns import best_of
from kdeploy.report.markdown import aggregate_to_markdown, to_markdown
from kdeploy.report.markdown_page import page
from kdeploy.report.rows import rows_from
from kdeploy.report.seeds import aggregate, mean_of
from kdeploy.report.terminal import AggregateTable, ResultTable
from tests.report.example import measurements, report, whole_report


@pytest.fixture
def rows():
    return rows_from(measurements(), baseline="teacher-pytorch-float32")


def printed(table, width: int, **options) -> str:
    console = Console(file=io.StringIO(), width=width, **options)
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [100, 120])
def test_the_table_fits(rows, width):
    text = printed(ResultTable(rows), width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in text
    teacher = next(line for line in lines if line.startswith("teacher ·"))
    for figure in ("99.2 % [97.6, 99.7]", "1.00×", "4.15 MiB", "1.08 M", "41.2 M"):
        assert figure in teacher
    assert "Accuracy on 360 images" in text


def test_rows_in_order(rows):
    lines = printed(ResultTable(rows), 120).splitlines()
    starts = [line for line in lines if line.startswith(("teacher ·", "alone ·", "student ·"))]
    assert len(starts) == len(rows)
    assert starts[-1].startswith("student · ONNX Runtime int8 ")


def test_a_percentile_that_is_not_supported_is_not_available(rows):
    line = next(line for line in printed(ResultTable(rows), 120).splitlines() if line.startswith("alone"))
    assert "n/a" in line


def test_the_best_is_marked(rows):
    text = printed(ResultTable(rows), 120, force_terminal=True, color_system="standard")
    assert "\x1b[1;32m38.0 KiB\x1b[0m" in text
    assert "\x1b[1;32m99.2 %\x1b[0m" in text
    assert "\x1b[1;32m4.15 MiB" not in text


def test_hostile_names_are_shown_as_they_are(rows):
    odd = [rows[0].model_copy(update={"name": "[red]x[/red] | `a`"})]
    assert "[red]x[/red]" in printed(ResultTable(odd), 120)
    assert r"| \[red\]x\[/red\] \| \`a\` |" in to_markdown(odd)


def test_best_of():
    assert best_of([1.0, None, 3.0, 3.0], "highest") == {2, 3}
    assert best_of([1.0, None, 3.0], "lowest") == {0}
    assert best_of([1.0, None, 1.0], "lowest") == set()
    assert best_of([1.0, 2.0], None) == set()


def test_markdown(rows):
    lines = to_markdown(rows).splitlines()
    assert lines[0] == (
        "| network · engine | accuracy | agrees | p50 (ms) | p99 (ms) | faster | size | smaller | params | MACs |"
    )
    assert lines[1] == "|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    assert len(lines) == 2 + len(rows)
    assert lines[2].startswith("| teacher · PyTorch float32 | **99.2 %** [97.6, 99.7] | 100.0 % |")
    assert "| **38.0 KiB** | **112×** |" in lines[-1]


def with_two_teachers(rows):
    """The same rows with likelihood and calibration, and a second teacher among them."""
    known = [row.model_copy(update={"negative_log_likelihood": 0.1234, "calibration_error": 0.0212}) for row in rows]
    second = {"key": "teacher-2-pytorch", "role": "teacher-2", "name": "teacher-2 · PyTorch float32"}
    return [*known, known[0].model_copy(update={**second, "negative_log_likelihood": 0.2})]


def test_likelihood_stands_in_tables_with_several_teachers(rows):
    for table in (rows, with_two_teachers(rows)[:-1]):
        assert "NLL" not in to_markdown(table)
        assert "ECE" not in printed(ResultTable(table), 140)
    lines = to_markdown(with_two_teachers(rows)).splitlines()
    assert lines[0].startswith("| network · engine | accuracy | NLL | ECE | agrees |")
    assert "| **0.123** | 2.1 % |" in lines[2]
    assert "| 0.200 | 2.1 % |" in lines[-1]


@pytest.mark.parametrize(
    ("width", "left_out"), [(80, ("agrees", "smaller", "params", "MACs")), (100, ("agrees", "smaller")), (124, ())]
)
def test_a_table_with_likelihood_fits(rows, width, left_out):
    text = printed(ResultTable(with_two_teachers(rows)), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    titles = text.splitlines()[0]
    for title in ("NLL", "ECE", "agrees", "smaller", "params", "MACs"):
        assert (title in titles) == (title not in left_out)


def test_means_of_likelihood_over_seeds(rows):
    first = with_two_teachers(rows)
    second = [row.model_copy(update={"negative_log_likelihood": 0.3}) for row in first]
    markdown = aggregate_to_markdown(aggregate([first, second])).splitlines()
    assert markdown[0].startswith("| network · engine | accuracy | NLL | ECE |")
    assert "| **0.212** [-0.910, 1.33] | 2.1 % [2.1, 2.1] |" in markdown[2]
    text = printed(AggregateTable(aggregate([first, second])), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


def test_aggregate_tables(rows):
    better = [row.model_copy(update={"accuracy": 0.99}) if row.role == "student" else row for row in rows]
    table = aggregate([rows, better])
    text = printed(AggregateTable(table), 100)
    assert "Means over 2 seeds" in text
    assert max(map(len, text.splitlines())) <= 100
    markdown = aggregate_to_markdown(table)
    assert markdown.count("\n") == 2 + len(rows)
    assert "**99.2 %** [99.2, 99.2]" in markdown


def test_a_markdown_page_has_each_seed_the_gain_and_the_machine():
    rows = rows_from(measurements(), baseline=measurements()[0].name)
    one = report()
    text = page(one, {0: rows})
    assert text.startswith(f"# {one.title}\n")
    assert "## Seed 0" in text
    assert "- processor:" in text
    several = page(
        one.model_copy(update={"seeds": tuple(aggregate([rows, rows])), "gain": mean_of([0.02, 0.03])}),
        {0: rows, 1: rows},
    )
    assert "Means over seeds 0, 1" in several
    assert "Distilled over alone: **+2.50 points** [-3.85, +8.85]" in several


def test_a_markdown_page_has_the_gain_of_each_student():
    rows = rows_from(measurements(), baseline=measurements()[0].name)
    gains = {"gain": mean_of([0.02, 0.03]), "further_gains": {"student-2": mean_of([0.04, 0.05])}}
    several = page(report(seeds=aggregate([rows, rows]), **gains), {0: rows, 1: rows})
    assert "Distilled over alone: **+2.50 points**" in several
    assert "Distilled over alone (student-2): **+4.50 points** [-1.85, +10.85]" in several


def test_memory_and_verdicts_in_the_terminal():
    rows = whole_report().rows
    for width, left_out in ((80, ("agrees", "smaller", "params", "MACs")), (100, ()), (120, ())):
        text = printed(ResultTable(rows), width)
        assert max(map(len, text.splitlines())) <= width
        titles = text.splitlines()[0]
        assert "memory" in titles
        assert not [title for title in left_out if title in titles]
        assert "INVALID alone · PyTorch float32: the medians of its halves are 7.1 %" in " ".join(text.split())
        assert text.rstrip().endswith("warning temperatures")
    assert "INVALID" not in printed(ResultTable(report().rows), 100)
