"""Files of lower precision, made and judged by their stage; the network is made without torch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper, parser

from kdeploy import artifacts
from kdeploy.errors import UserError
from kdeploy.stages import gates
from kdeploy.stages import quantize as stage
from tests.training import tiny

TEXT = """<ir_version: 9, opset_import: ["" : 18]> g (float[N, 1, 8, 8] images) => (float[N, 10] logits) {
    a = Conv <pads = [1, 1, 1, 1]> (images, w1, b1)
    r = Relu (a)
    c = Conv <pads = [1, 1, 1, 1]> (r, w2, b2)
    s = Add (c, r)
    p = GlobalAveragePool (s)
    f = Flatten (p)
    logits = Gemm <transB = 1> (f, w3, b3)
}"""
SHAPES = {"w1": (8, 1, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,), "w3": (10, 8), "b3": (10,)}
ENGINES: list[dict[str, Any]] = [
    {"precision": "int8", "scheme": "x86-avx2", "calibration": {"samples": 16}},
    {"precision": "mixed", "scheme": "x86-avx2", "calibration": {"samples": 16}, "budget_points": 0},
    {"precision": "float16", "keep_float32": ["Gemm"]},
]


@pytest.fixture
def run(tmp_path: Path) -> Any:
    model = parser.parse_model(TEXT)
    random = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        model.graph.initializer.append(numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name))
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "student.float32.onnx").write_bytes(model.SerializeToString())
    card = {"image": {"height": 8, "width": 8, "channels": 1}, "mean": [0.3], "std": [0.3]}
    artifacts.write_json(tmp_path / "networks" / "student" / "student.json", card)
    recipe = tiny.recipe(engines=ENGINES, export={"preprocess": "outside"})
    told = {"labelled": True, "images_in_words": None, "outputs_of": lambda *stages: {}}
    return SimpleNamespace(folder=tmp_path, recipe=recipe, splits=tiny.splits(), **told)


def made(run: Any, number: int, label: str) -> dict[str, Any]:
    found = stage.Quantize("student", label, run.recipe.engines[number])
    assert found.inputs(run)["rows"] == [f"student-onnxruntime-{ENGINES[number]['precision']}"]
    model, record, card = found.run(run)
    assert model == run.folder / "export" / f"student.{label}.onnx"
    assert all(path.is_file() for path in (model, record, card))
    content: dict[str, Any] = artifacts.read_json(card)
    return content


def test_int8_is_judged_on_validation(run: Any) -> None:
    card = made(run, 0, "int8-x86-avx2")
    assert (card["precision"], card["scheme"], card["opset"]) == ("int8", "x86-avx2", 18)
    assert card["calibration"] == {"samples": 16, "method": "minmax", "bias_correction": False, "split": "train"}
    assert set(card["validation"]) == {"samples", "float32", "int8"}
    (gate,) = gates._drops([card], 100)
    assert (gate.row, gate.passed) == ("student-onnxruntime-int8", True)


def test_mixed_holds_its_budget_and_says_how(run: Any) -> None:
    card = made(run, 1, "mixed-x86-avx2")
    layers = [cost["layer"] for cost in card["sensitivity"]]
    assert len(layers) == 5
    worst_first = sorted(card["sensitivity"], key=lambda cost: -cost["divergence"])
    assert card["kept_float32"] == [cost["layer"] for cost in worst_first][: len(card["kept_float32"])]
    assert [step["kept_float32"] for step in card["steps"]] == list(range(len(card["kept_float32"]) + 1))
    assert card["validation"]["mixed"] >= card["validation"]["float32"]
    assert card["steps"][-1]["score"] == pytest.approx(card["validation"]["mixed"], abs=0.01)
    (gate,) = gates._drops([card], None)
    assert (gate.name, gate.passed) == ("mixed_drop_points", True)


def test_float16_keeps_what_it_is_told_to(run: Any) -> None:
    card = made(run, 2, "float16")
    assert card["kept_float32"] == ["Gemm/logits"]
    assert abs(card["validation"]["float16"] - card["validation"]["float32"]) < 0.05
    assert gates._drops([card], 0.0) == []


def test_calibration_images_of_one_class_are_refused(run: Any) -> None:
    only = np.flatnonzero(run.splits.train.labels == 3)
    train = run.splits.train.take(only)
    run.splits = SimpleNamespace(
        train=train,
        validation=run.splits.validation,
        classes=run.splits.classes,
        has_training_images=True,
    )
    with pytest.raises(UserError, match=r"All \d+ calibration images are of the class '3', one of 10"):
        stage.calibrate(run, "student", run.recipe.engines[0])
