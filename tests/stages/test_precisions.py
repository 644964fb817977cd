"""Which ONNX file each engine of a recipe is made from."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from kdeploy import pipeline
from kdeploy.errors import UserError
from kdeploy.recipe.checks import check
from kdeploy.recipe.schema import EngineSpec
from kdeploy.stages import precisions
from tests.training import tiny


@pytest.fixture(autouse=True)
def vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precisions, "instruction_sets", lambda: frozenset({"avx2", "avx512_vnni"}))


def labels(*engines: dict[str, Any]) -> list[str]:
    specs = [EngineSpec.model_validate(engine) for engine in engines]
    return [precisions.label(spec, specs) for spec in specs]


INT8 = {"precision": "int8"}


def test_files_are_named_by_precision_and_scheme() -> None:
    assert labels({}, {"precision": "float16"}, INT8, {"precision": "mixed", "scheme": "arm64"}) == [
        "float32",
        "float16",
        "int8-x86-vnni",
        "mixed-arm64",
    ]
    assert labels({"engine": "openvino", "precision": "bfloat16"}) == ["float32"]  # the engine casts


def test_engines_that_ask_for_the_same_share_a_file() -> None:
    same = [INT8, INT8 | {"engine": "openvino"}, INT8 | {"scheme": "x86-vnni", "variant": "named"}]
    assert labels(*same) == ["int8-x86-vnni"] * 3
    specs = [EngineSpec.model_validate(engine) for engine in same]
    assert list(precisions.made_of_float32(specs)) == ["int8-x86-vnni"]


def test_files_of_one_scheme_are_told_apart_by_what_differs() -> None:
    entropy = {"method": "entropy", "samples": 64}
    assert labels(INT8, INT8 | {"calibration": entropy}, INT8 | {"scheme": "qnn"}) == [
        "int8-x86-vnni-minmax-256",
        "int8-x86-vnni-entropy-64",
        "int8-qnn",
    ]
    assert labels(INT8, INT8 | {"calibration": {"bias_correction": True}}) == [
        "int8-x86-vnni",
        "int8-x86-vnni-bias-corrected",
    ]
    halves = {"precision": "float16"}
    assert labels(halves, halves | {"keep_float32": ["Gemm"]}) == ["float16", "float16-keep-Gemm"]
    mixed = {"precision": "mixed"}
    assert labels(mixed, mixed | {"budget_points": 1.5}) == ["mixed-x86-vnni-0_3-points", "mixed-x86-vnni-1_5-points"]


def test_a_shared_file_is_made_once_and_each_engine_is_built() -> None:
    engines = [{}, INT8, INT8 | {"engine": "openvino"}, INT8 | {"variant": "mse", "calibration": {"method": "mse"}}]
    recipe = tiny.recipe(engines=engines)
    names = [stage.name for stage in pipeline.compilation(recipe)]
    assert [name for name in names if name.startswith("quantize/")] == [
        "quantize/student-int8-x86-vnni-minmax",
        "quantize/student-int8-x86-vnni-mse",
    ]
    assert [name for name in names if name.startswith("engines/student-") and "int8" in name] == [
        "engines/student-onnxruntime-int8",
        "engines/student-openvino-int8",
        "engines/student-onnxruntime-int8-mse",
    ]


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (INT8 | {"keep_float32": ["Softmax"]}, "keep_float32 is for the precision float16, not for int8"),
        ({"precision": "float16", "budget_points": 1}, "budget_points is for the precision mixed, not for float16"),
        ({"precision": "float16", "keep_float32": ["../x"]}, "keep_float32"),
    ],
)
def test_options_that_would_do_nothing_are_refused(engine: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EngineSpec.model_validate(engine)


def test_an_engine_says_before_any_work_which_precisions_it_runs() -> None:
    recipe = tiny.recipe(engines=[{"engine": "onnxruntime", "precision": "bfloat16"}])
    with pytest.raises(UserError, match="onnxruntime runs no bfloat16, only float32, float16, int8, mixed"):
        check(recipe, lambda place: ".".join(map(str, place)))
