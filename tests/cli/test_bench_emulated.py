"""`kdeploy bench` on an emulated processor: accuracy and size, and no word of time or memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdeploy.machine import host
from tests.engines import models

BY = "qemu-aarch64-static on a processor of the x86 family"
LONG = ("--min-time", "600")
"""Nothing is timed, so it takes no time."""
ENGINES = "runs/quickstart/engines"


@pytest.fixture(autouse=True)
def emulated(monkeypatch):
    monkeypatch.setattr(host, "emulated", lambda: BY)


@pytest.fixture
def file(empty) -> Path:
    return models.save_classifier(Path("one.onnx"), in_graph=False)


def test_engines_of_a_run_have_their_accuracy(place, kdeploy):
    """As the run itself measured it, on the same images."""
    answer = kdeploy("bench", f"{ENGINES}/student-onnxruntime-int8", *LONG, "--json", "out.json", "--out", "raw")
    assert answer.status == 0, answer.err
    said = " ".join(answer.out.split())
    assert f"emulated {BY}: latency, energy and memory are not measured; accuracy and size are true" in said
    assert "INVALID" not in said
    for word in ("cold start", "Energy", "MiB", " ms "):
        assert word not in said.replace("p50 and p99 in ms at batch 1", "")
    before = json.loads(Path("runs/quickstart/bench/student-onnxruntime-int8.json").read_text())
    found = json.loads(Path("out.json").read_text())
    (measured,) = found["measurements"]
    assert measured["accuracy"] == before["accuracy"]
    assert measured["size_bytes"] == before["size_bytes"]
    assert (measured["emulated"], measured["latency"]) == (BY, [])
    for name in ("load_ms", "first_inference_ms", "cold_start_ms", "spans", "memory"):
        assert measured[name] is None
    assert measured["verdict"] == {"valid": None, "reasons": [], "warnings": []}
    (row,) = found["rows"]
    assert (row["p50_ms"], row["memory_bytes"], row["valid"], row["emulated"]) == (None, None, None, BY)
    assert json.loads(Path("raw/student-onnxruntime-int8.json").read_text()) == measured


def test_several_are_compared_by_accuracy_alone(place, kdeploy):
    names = [f"{ENGINES}/student-onnxruntime-{precision}" for precision in ("float32", "int8")]
    answer = kdeploy("bench", *names, *LONG, "--json", "out.json")
    assert answer.status == 0, answer.err
    assert "comparison: accuracy alone (on an emulated processor nobody can say which is faster)" in answer.err
    assert "student · ONNX Runtime int8 and student · ONNX Runtime float32: which is faster is not" in answer.out
    (side,) = json.loads(Path("out.json").read_text())["comparison"]["sides"]
    assert (side["ratio"], side["decision"]) == (None, "not timed")
    assert 0 <= side["disagreement"]["p_value"] <= 1


def test_strict_ends_with_status_4(kdeploy, file):
    answer = kdeploy("bench", "one.onnx", *LONG, "--strict", "--json", "out.json")
    assert answer.status == 4
    assert answer.said.startswith(f"1 of 1 measurements have no latency, because the processor is emulated ({BY})")
    assert len(json.loads(Path("out.json").read_text())["measurements"]) == 1
    assert kdeploy("bench", "one.onnx", *LONG).status == 0


def test_size_is_true_where_there_is_no_data(kdeploy, file):
    said = " ".join(kdeploy("bench", "one.onnx", *LONG, "--batch", "4").out.split())
    assert "are not measured; size is true" in said
    assert "at batch 4" not in said


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--scenario", "offline"], "--scenario can't"),
        (["--layers"], "--layers can't"),
        (["--scenario", "offline", "--layers"], "--scenario and --layers can't"),
        (["--against", "before.json", "--fail-if", "p50 > 3%"], "--fail-if 'p50 > 3%' can't"),
        (["--against", "before.json", "--fail-if", "size > 1%", "--fail-if", "memory > 1%"], "--fail-if 'memory > 1%'"),
    ],
)
def test_times_are_refused_before_anything_is_measured(kdeploy, file, words, named, monkeypatch):
    assert kdeploy("bench", "one.onnx", *LONG, "--json", "before.json").status == 0
    monkeypatch.setattr("kdeploy.bench.measure.run_job", lambda *_: pytest.fail("something was measured"))
    answer = kdeploy("bench", "one.onnx", *LONG, *words)
    assert answer.status == 5
    assert answer.said.startswith(named)
    assert f"the processor is emulated ({BY})" in answer.said


def test_accuracy_and_size_can_still_be_held_to_a_baseline(kdeploy, file):
    assert kdeploy("bench", "one.onnx", *LONG, "--json", "before.json").status == 0
    words = ("bench", "one.onnx", *LONG, "--against", "before.json", "--json", "-")
    assert kdeploy(*words, "--fail-if", "size > 0%", "--fail-if", "accuracy < -1").status == 0
    assert kdeploy(*words, "--fail-if", "size > -1%").status == 3


def test_a_baseline_of_the_real_machine_is_of_another(kdeploy, file, monkeypatch):
    monkeypatch.setattr(host, "emulated", lambda: None)
    assert kdeploy("bench", "one.onnx", "--min-time", "0.05", "--min-count", "70", "--json", "before.json").status == 0
    monkeypatch.setattr(host, "emulated", lambda: BY)
    answer = kdeploy("bench", "one.onnx", *LONG, "--against", "before.json", "--fail-if", "size > 0%")
    assert answer.status == 2
    assert f"emulation None there, {BY} here" in answer.said
