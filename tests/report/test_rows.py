from __future__ import annotations

import pytest

from kdeploy.errors import UserError
from kdeploy.report.rows import rows_from
from tests.report.example import measurements

BASELINE = "teacher-pytorch-float32"


def test_teacher_first_then_alone_then_the_student_and_its_engines():
    rows = rows_from(measurements(), baseline=BASELINE)
    assert [row.name for row in rows] == [
        "teacher · PyTorch float32",
        "teacher · ONNX Runtime float32",
        "alone · PyTorch float32",
        "student · PyTorch float32",
        "student · ONNX Runtime float32",
        "student · ONNX Runtime int8",
    ]


def test_ratios_refer_to_the_baseline():
    found = measurements()
    rows = {row.key: row for row in rows_from(found, baseline=BASELINE)}
    by_name = {measurement.name: measurement for measurement in found}
    teacher, int8 = rows[BASELINE], rows["student-onnxruntime-int8"]
    assert (teacher.latency_ratio, teacher.size_ratio, teacher.agreement_with_teacher) == (1.0, 1.0, 1.0)
    assert int8.size_ratio == 4_352_000 / 38_912
    p50 = [by_name[name].latency[0].p50.value_ms for name in (BASELINE, "student-onnxruntime-int8")]
    assert int8.latency_ratio == p50[0] / p50[1]


def test_agreement_counts_the_images_on_which_both_say_the_same():
    rows = {row.key: row for row in rows_from(measurements(), baseline=BASELINE)}
    # The example's networks are wrong on the same images first, in the same way: 357 and 351 right of 360.
    assert rows["student-onnxruntime-int8"].agreement_with_teacher == 354 / 360


def test_what_was_not_measured_is_none():
    found = measurements()
    bare = found[0].model_copy(update={"accuracy": None, "latency": found[0].latency[1:]})
    row = {row.key: row for row in rows_from([bare, found[-1]], baseline=BASELINE)}[bare.name]
    assert (row.accuracy, row.accuracy_low, row.samples, row.p50_ms, row.p99_ms) == (None,) * 5
    assert (row.latency_ratio, row.agreement_with_teacher) == (None, None)
    too_few = {row.key: row for row in rows_from(found, baseline=BASELINE)}["alone-pytorch-float32"]
    assert too_few.p99_ms is None
    assert too_few.p50_ms is not None


def test_agreement_needs_a_teacher_and_the_same_images():
    found = measurements()
    rows = rows_from(found, baseline="student-onnxruntime-int8")
    assert all(row.agreement_with_teacher is None for row in rows)
    other = found[0].accuracy.model_copy(update={"split": "validation"})
    rows = rows_from([found[0].model_copy(update={"accuracy": other}), found[-1]], baseline=BASELINE)
    assert rows[-1].agreement_with_teacher is None


def test_unknown_baseline():
    with pytest.raises(UserError, match=r"no measurement 'teacher-pytorch' .* 'teacher-pytorch-float32'"):
        rows_from(measurements(), baseline="teacher-pytorch")


def test_other_roles_and_engines_have_their_place():
    found = measurements()
    extra = [
        found[0].model_copy(update={"name": "assistant", "role": "assistant-1"}),
        found[0].model_copy(update={"name": "net.onnx", "role": "file", "engine": "ncnn", "precision": "int4"}),
    ]
    names = [row.name for row in rows_from([*extra, *found], baseline=BASELINE)]
    assert names.index("assistant-1 · ONNX Runtime int8") == 2
    assert names[-1] == "net.onnx · ncnn int4"


def test_engines_with_different_options_are_told_apart():
    found = measurements()
    (int8,) = (one for one in found if one.name == "student-onnxruntime-int8")
    other = int8.model_copy(update={"name": "student-onnxruntime-int8-ort", "variant": "ort"})
    assert rows_from([*found, other], baseline=BASELINE)[-1].name == "student · ONNX Runtime int8 (ort)"
