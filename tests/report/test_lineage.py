from __future__ import annotations

from types import SimpleNamespace
from xml.etree import ElementTree

from kdeploy.report.charts import lineage as chart
from kdeploy.report.lineage import lineage
from tests.report.example import LINEAGE, measurements

CHECKPOINT, TEACHER, STUDENT, CHOSEN, GRAPH, INT8, BUNDLE = (letter * 64 for letter in "0123456")


def stage(outputs, **inputs):
    return SimpleNamespace(inputs=inputs, outputs=outputs)


STAGES = {
    "data": stage({"data.json": "9" * 64}, files="8" * 64),
    "networks/teacher": stage(
        {"networks/teacher/teacher.safetensors": TEACHER, "networks/teacher/teacher.json": "7" * 64},
        network={"checkpoint": "somewhere/else/net.pt"},
        checkpoint=CHECKPOINT,
    ),
    # The record keeps the place of a stage that was done again: the student stands before what it was exported from.
    "export/student": stage({"export/student.float32.onnx": GRAPH}, network={"safetensors": STUDENT}),
    "networks/student": stage(
        {
            "networks/student/student.safetensors": STUDENT,
            "networks/student/student-chosen.safetensors": CHOSEN,
        },
        before={"teacher": TEACHER},
        checkpoint=None,
    ),
    "quantize/student-int8": stage({"export/student.int8.onnx": INT8}, model=GRAPH, images={"data.json": "9" * 64}),
    "engines/student-onnxruntime-int8": stage(
        {
            "engines/student-onnxruntime-int8/model.onnx": INT8,
            "engines/student-onnxruntime-int8/manifest.json": "a" * 64,
        },
        source=INT8,
    ),
    "bundle": stage({"net.kdz": BUNDLE, "bird.png": "b" * 64}, files={}),
}
ENGINE = measurements()[0].model_copy(update={"name": "student-onnxruntime-int8", "artifact": INT8})


def test_from_the_checkpoint_to_the_bundle_by_hash():
    found = lineage(STAGES, [ENGINE], {"net.kdz": ENGINE.name})
    assert [(made.name, made.sha256, made.made_from) for made in found] == [
        ("checkpoint of teacher", CHECKPOINT, ()),
        ("teacher", TEACHER, ("net.pt",)),
        ("student", STUDENT, ("networks/teacher/teacher.safetensors",)),
        ("student · ONNX float32", GRAPH, ("networks/student/student.safetensors",)),
        ("student · ONNX int8", INT8, ("export/student.float32.onnx",)),
        ("student · ONNX Runtime int8", INT8, ("export/student.int8.onnx",)),
        ("bundle", BUNDLE, ("engines/student-onnxruntime-int8/model.onnx",)),
    ]
    assert all(made.ships for made in found), "the weights of the other epoch lead to nothing and are left out"
    assert [made.stage for made in found][:2] == [None, "networks/teacher"]


def test_an_engine_that_is_not_in_the_record_is_left_out():
    assert lineage(STAGES, [ENGINE.model_copy(update={"artifact": "c" * 64})], {}) == ()
    assert lineage({}, [ENGINE], {"net.kdz": ENGINE.name}) == ()
    assert not any(made.ships for made in lineage(STAGES, [ENGINE], {}))


def test_the_drawing_has_a_box_a_file_and_none_covers_another():
    root = ElementTree.fromstring(chart.draw("lineage", LINEAGE))
    boxes = [tuple(float(one.get(side)) for side in ("x", "y", "width", "height")) for one in root.iter("rect")]
    assert len(boxes) == len(LINEAGE)
    for place, (x, y, width, height) in enumerate(boxes):
        for left, top, wide, high in boxes[place + 1 :]:
            assert x + width <= left or left + wide <= x or y + height <= top or top + high <= y
    assert root.find("desc").text.startswith(
        "checkpoint of teacher (1f1f1f1f1f1f) from outside; teacher (abababababab)"
    )
    assert chart.draw("lineage", ()) is None
