"""`kdeploy bench` of files from elsewhere: verdicts, comparisons, baselines."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from tests.engines import models

BRIEF = ("--min-time", "0.05", "--min-count", "70")


@pytest.fixture
def file(empty) -> Path:
    return models.save_classifier(Path("one.onnx"), in_graph=False)


def test_somebody_elses_file_in_one_command(kdeploy, file):
    answer = kdeploy("bench", "one.onnx", *BRIEF)
    assert answer.status == 0, answer.err
    assert "one · ONNX Runtime not stated" in answer.out
    assert "too short to see what other programs used" in " ".join(answer.out.split())


def test_strict_is_status_4_and_nothing_is_lost(kdeploy, file):
    words = ["--min-time", "0.01", "--min-count", "1", "--batch", "20000", "--strict", "--json", "out.json"]
    answer = kdeploy("bench", "one.onnx", *words)
    (measured,) = json.loads(Path("out.json").read_text())["measurements"]
    assert answer.status == (0 if measured["verdict"]["valid"] else 4)
    assert "batch 20000: only" in " ".join(measured["verdict"]["reasons"])
    assert answer.status == 4
    assert "1 of 1 measurements are INVALID: one" in answer.err


def test_two_files_are_called_in_turns(kdeploy, file):
    models.save_classifier(Path("two.onnx"), in_graph=False)
    answer = kdeploy("bench", "one.onnx", "two.onnx", *BRIEF, "--processes", "2", "--json", "-")
    assert answer.status == 0, answer.err
    found = answer.json["comparison"]
    assert (found["baseline"], found["processes"]) == ("one", 2)
    (side,) = found["sides"]
    assert side["name"] == "two"
    assert side["low"] < side["ratio"] < side["high"]
    assert side["disagreement"] is None


def test_one_file_or_no_compare_makes_no_comparison(kdeploy, file):
    models.save_classifier(Path("two.onnx"), in_graph=False)
    answer = kdeploy("bench", "one.onnx", "two.onnx", *BRIEF, "--no-compare", "--json", "-")
    assert answer.json["comparison"] is None


def test_a_baseline_of_before(kdeploy, file):
    assert kdeploy("bench", "one.onnx", *BRIEF, "--json", "before.json").status == 0
    words = ("bench", "one.onnx", *BRIEF, "--against", "before.json", "--json", "-")
    same = kdeploy(*words, "--fail-if", "size > 0%", "--fail-if", "p50 > 10000%")
    assert same.status == 0, same.err
    assert [one["failed"] for one in same.json["checked"]] == [False, False]
    worse = kdeploy(*words, "--fail-if", "size > -1%")
    assert worse.status == 3
    assert "kdeploy: It became worse than allowed: one: size > -1%." in worse.err
    assert worse.json["checked"][0]["failed"]


def test_a_baseline_of_another_machine_is_refused_before_anything_is_measured(kdeploy, file):
    assert kdeploy("bench", "one.onnx", *BRIEF, "--out", "raw").status == 0
    raw = json.loads(Path("raw/one.json").read_text())
    raw["machine"]["processor"] = "Cortex-A72"
    Path("raw/one.json").write_text(json.dumps(raw))
    answer = kdeploy("bench", "one.onnx", *BRIEF, "--against", "raw/one.json", "--fail-if", "p50 > 3%")
    assert answer.status == 2
    assert "processor Cortex-A72 there" in answer.err
    assert "measure one" not in answer.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--fail-if", "p50 > 3%"], "--fail-if needs what to compare with: --against FILE"),
        (["--against", "none.json"], "--against needs what to look at"),
        (["--against", "none.json", "--fail-if", "p50 > 3%"], "There is no file none.json"),
        (["--against", "none.json", "--fail-if", "p49 > 3%"], "no figure 'p49'"),
    ],
)
def test_half_a_question_is_refused(kdeploy, file, words, said):
    answer = kdeploy("bench", "one.onnx", *words)
    assert answer.status == 2
    assert said in answer.err


def test_a_scenario_with_its_audits(kdeploy, file):
    answer = kdeploy("bench", "one.onnx", *BRIEF, "--scenario", "single-stream", "--scenario", "offline", "--json", "-")
    assert answer.status == 0, answer.err
    found = answer.json["measurements"][0]["scenarios"]
    assert [one["result"]["scenario"] for one in found] == ["single-stream", "offline"]
    assert found[0]["outputs"]["passed"]
    assert "single-stream: " in answer.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--scenario", "singl-stream"], "no scenario 'singl-stream'. Did you mean 'single-stream'?"),
        (["--scenario", "offline", "--rate", "3"], "--rate is for the scenario server alone"),
        (["--mlperf"], "--mlperf is of MLPerf's scenarios: add --scenario single-stream"),
    ],
)
def test_scenarios_that_do_not_go_together_are_refused(kdeploy, file, words, said):
    answer = kdeploy("bench", "one.onnx", *words)
    assert answer.status == 2
    assert said in answer.err


def test_files_of_one_name_are_told_apart(kdeploy, file):
    Path("b").mkdir()
    models.save_classifier(Path("b/one.onnx"), in_graph=False)
    words = ("one.onnx", "b/one.onnx", "b/../one.onnx", *BRIEF, "--processes", "2")
    answer = kdeploy("bench", *words, "--out", "raw", "--json", "-")
    assert answer.status == 0, answer.err
    names = [found["name"] for found in answer.json["measurements"]]
    assert names == ["one.onnx", "b-one.onnx", "b-one.onnx-2"]
    assert len(answer.json["comparison"]["sides"]) == 2
    assert len(list(Path("raw").glob("*.json"))) == 3


def test_what_was_measured_is_shown_where_the_comparison_fails(kdeploy, file, monkeypatch):
    from kdeploy.bench import interleaving
    from kdeploy.errors import UserError

    def too_large(peaks, processes):
        raise UserError("No room for two processes of each.")

    monkeypatch.setattr(interleaving, "processes_that_fit", too_large)
    models.save_classifier(Path("two.onnx"), in_graph=False)
    answer = kdeploy("bench", "one.onnx", "two.onnx", *BRIEF, "--json", "out.json")
    assert answer.status == 2
    assert "No room for two processes" in answer.err
    assert "two · ONNX Runtime" in answer.out
    assert len(json.loads(Path("out.json").read_text())["measurements"]) == 2


def test_further_batches_and_beginnings_have_lines(kdeploy, file):
    answer = kdeploy("bench", "one.onnx", *BRIEF, "--batch", "4")
    said = " ".join(answer.out.split())
    assert "one · ONNX Runtime not stated at batch 4: p50 " in said
    assert "one · ONNX Runtime not stated: cold start " in said
    assert "; of a call copies " in said


def test_formats_for_others(kdeploy, file):
    names = ["t.csv", "t.md", "t.dashboard.json", "t.schema.json"]
    answer = kdeploy(
        "bench", "one.onnx", *BRIEF, "--out", "raw", *(word for name in names for word in ("--save", name))
    )
    assert answer.status == 0, answer.err
    assert Path("t.csv").read_text().startswith("key,name,role,")
    assert Path("t.md").read_text().startswith("| network")
    assert {one["unit"] for one in json.loads(Path("t.dashboard.json").read_text())} >= {"ms", "bytes"}
    jsonschema.validate(json.loads(Path("raw/one.json").read_text()), json.loads(Path("t.schema.json").read_text()))
    assert kdeploy("bench", "one.onnx", "--save", "t.xlsx").status == 2


def test_an_engine_of_a_run_is_found_from_beside_it(place, kdeploy, monkeypatch):
    monkeypatch.chdir(place / "runs" / "quickstart" / "engines")
    answer = kdeploy("bench", "student-onnxruntime-int8", *BRIEF, "--json", "-")
    assert answer.status == 0, answer.err
    assert answer.json["measurements"][0]["accuracy"]["split"] == "test"


def test_what_was_measured_is_shown_where_the_next_file_is_broken(kdeploy, file):
    Path("two.onnx").write_bytes(b"no model")
    answer = kdeploy("bench", "one.onnx", "two.onnx", *BRIEF, "--json", "out.json")
    assert answer.status == 2
    assert "two.onnx" in answer.said
    assert "one · ONNX Runtime" in answer.out
    (measured,) = json.loads(Path("out.json").read_text())["measurements"]
    assert measured["name"] == "one"
