from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kdeploy.engines.tensorrt import dla, layers
from kdeploy.errors import GateFailed
from tests.engines.tensorrt.world import PHRASES, WORDS, layer

PLAN = Path("model.plan")


def parse(*described: dict[str, Any]) -> tuple[layers.Layer, ...]:
    return layers.parse(json.dumps({"Layers": described}))


@pytest.mark.parametrize("words", [PHRASES, WORDS], ids=["phrases", "words"])
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16", "int8"])
def test_each_way_to_write_a_type_is_read(precision: str, words: dict[str, str]) -> None:
    assert [found.precision for found in parse(layer("a", precision, words=words))] == [precision]


@pytest.mark.parametrize(
    "kind", ["CaskConvolution", "CaskGemmMatrixMultiply", "gemm", "CaskDeconvolutionV2", "FullyConnected"]
)
def test_what_multiplies_is_known_by_its_type(kind: str) -> None:
    assert parse(layer("a", "float16", kind=kind))[0].precision == "float16"


def test_reformatting_and_pooling_multiply_nothing() -> None:
    assert layers.counts(parse(layer("a", "float32", kind="Reformat"), layer("b", "float32", kind="CaskPooling"))) == {}


def test_a_fused_kernel_multiplies_if_its_tactic_does() -> None:
    gemm = layer("a", "int8", kind="kgen") | {"TacticName": "__myl_sm80_xmma_gemm_i8i8"}
    pointwise = layer("b", "float32", kind="kgen") | {"TacticName": "__myl_AddRelu"}
    assert layers.counts(parse(gemm, pointwise)) == Counter({"int8": 1})


def test_the_weights_tell_before_the_inputs() -> None:
    """An int8 convolution may read float16 beside: the residual that it adds."""
    described = layer("a", "float32") | {"Weights": {"Type": "Int8", "Count": 9}}
    assert parse(described)[0].precision == "int8"
    assert parse(layer("a", "float16") | {"Weights": {"Type": "Half", "Count": 9}})[0].precision == "float16"


def test_constants_count_as_inputs() -> None:
    described = layer("a", "float32") | {"Constants": [{"Name": "w", "Format/Datatype": "Half"}]}
    assert parse(described)[0].precision == "float16"


def test_tensor_float_is_no_float32() -> None:
    found = parse(layer("a", "float32") | {"TacticName": "sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32"})
    expected = Counter({"float32": 1})
    with pytest.raises(GateFailed, match="0 layers in float32 and 1 in tf32"):
        layers.require_precision(found, "float32", expected, share=1, path=PLAN)


def test_a_mixed_graph_may_have_what_it_says() -> None:
    found = parse(layer("stem", "float32"), *[layer(f"l{index}", "int8") for index in range(3)])
    layers.require_precision(found, "int8", Counter({"float32": 1, "int8": 4}), share=1, path=PLAN)
    assert layers.operators(found) == {"float32": {"Conv": 1}, "int8": {"Conv": 3}}
    with pytest.raises(
        GateFailed, match=r"3 layers in int8 and 1 in float32 \(such as stem\); the graph gives 4 of its 4"
    ):
        layers.require_precision(found, "int8", Counter({"int8": 4}), share=1, path=PLAN)
    layers.require_precision(found, "int8", Counter({"int8": 4}), share=0.75, path=PLAN)


def test_products_of_activations_may_be_in_any_precision() -> None:
    found = parse(layer("a", "int8"), layer("attention", "float32"))
    layers.require_precision(found, "int8", Counter({"int8": 1, None: 1}), share=1, path=PLAN)


def test_an_engine_without_visible_products_is_not_proved() -> None:
    with pytest.raises(GateFailed, match="0 layers in int8 and none in another"):
        layers.require_precision(
            parse(layer("a", "int8", kind="Reformat")), "int8", Counter({"int8": 1}), share=1, path=PLAN
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "gave no list of layers"),
        ("{}", "gave no list of layers"),
        ('{"Layers": []}', "gave names alone"),
        ('{"Layers": ["Conv_0 + Relu_1"]}', "not built with detailed profiling verbosity"),
    ],
)
def test_an_inspector_that_says_too_little_proves_nothing(text: str, message: str) -> None:
    with pytest.raises(GateFailed, match=message):
        layers.parse(text)


def test_coverage_of_a_dla() -> None:
    log = [
        "[11/21/2026-20:00:00] [I] [TRT] ---------- Layers Running on DLA ----------",
        "[11/21/2026-20:00:00] [I] [TRT] [DlaLayer] {ForeignNode[/conv1/Conv.../layer4/Relu]}",
        "[11/21/2026-20:00:00] [I] [TRT] [DlaLayer] {ForeignNode[/fc/Gemm]}",
        "[11/21/2026-20:00:00] [I] [TRT] [GpuLayer] POOLING: /pool/GlobalAveragePool",
    ]
    assert dla.coverage(log) == {
        "dla_parts": ["/conv1/Conv.../layer4/Relu", "/fc/Gemm"],
        "gpu_layers": ["POOLING: /pool/GlobalAveragePool"],
        "dla_share": pytest.approx(2 / 3),
    }
    assert dla.coverage([])["dla_share"] == 0
