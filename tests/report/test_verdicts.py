from __future__ import annotations

import pytest

from kdeploy.bench.results import Verdict
from kdeploy.errors import InvalidMeasurement
from kdeploy.report.html import render
from kdeploy.report.verdicts import int8_failures, require_valid
from tests.report.example import measurement, report

SIZES = {"size_bytes": 1000, "parameters": 10, "macs": 10}


def pair(int8_ms, int8_correct, engine="onnxruntime"):
    return [
        measurement("student", engine, "int8", p50_ms=int8_ms, correct=int8_correct, **SIZES),
        measurement("student", "onnxruntime", "float32", p50_ms=1.0, correct=350, **SIZES),
    ]


def test_int8_that_is_faster_and_as_accurate_needs_no_word():
    assert int8_failures(pair(0.5, 350), 1.0) == []
    assert int8_failures(pair(1.0, 350), 1.0) == []  # no difference beyond chance
    assert int8_failures(pair(0.5, 347), 1.0) == []  # 0.83 points
    assert int8_failures(pair(0.5, 300), None) == []  # nobody set a bound
    assert int8_failures(pair(2.0, 300, engine="openvino"), 1.0) == []  # nothing to compare with in that runtime


@pytest.mark.parametrize(
    ("ms", "correct", "words"),
    [
        (2.0, 350, ["takes 2.0", "(2.0", "slower)."]),
        (0.5, 346, ["names 96.1 % of 360 images correctly and float32 97.2 % (1.11 points lost, 1 allowed)."]),
        (2.0, 346, ["slower), and names 96.1 %"]),
    ],
)
def test_what_is_said_of_int8_that_is_not_worth_it(ms, correct, words):
    (sentence,) = int8_failures(pair(ms, correct), 1.0)
    assert sentence.startswith("int8 fails on this machine: student · ONNX Runtime int8 ")
    for word in words:
        assert word in sentence


def test_the_report_shows_it():
    assert "int8 is not worth it here" not in render(report())
    assert "twice as slow" in render(report(int8_failures=["int8 fails: twice as slow."]))


def untimed(precision, correct, **changes):
    timed = measurement("student", "onnxruntime", precision, p50_ms=1.0, correct=correct, **SIZES)
    emulated = {"emulated": "qemu-aarch64-static", "latency": (), "load_ms": None, "first_inference_ms": None}
    return timed.model_copy(update={**emulated, "verdict": Verdict(valid=None, reasons=(), warnings=()), **changes})


def test_int8_is_held_to_its_accuracy_where_nothing_is_timed():
    (sentence,) = int8_failures([untimed("int8", 346), untimed("float32", 350)], 1.0)
    assert "1.11 points lost, 1 allowed" in sentence
    assert "ms an image" not in sentence
    assert int8_failures([untimed("int8", 350), untimed("float32", 350)], 1.0) == []


def test_what_is_emulated_is_not_strictly_measured():
    with pytest.raises(InvalidMeasurement, match=r"1 of 2 measurements have no latency, .* emulated \(qemu-aarch64"):
        require_valid([untimed("int8", 350), pair(0.5, 350)[1]])
    bad = Verdict(valid=False, reasons=("other precision",), warnings=())
    with pytest.raises(InvalidMeasurement, match="1 of 1 measurements are INVALID"):
        require_valid([untimed("int8", 350, verdict=bad)])
    require_valid(pair(0.5, 350))
