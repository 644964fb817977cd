from __future__ import annotations

from collections import Counter

import numpy as np
import onnxruntime
import pytest
from onnx import checker, numpy_helper, parser

from kdeploy.quantize import boundaries, rewrites

IMAGES = np.random.default_rng(0).normal(size=(3, 2, 5, 4)).astype(np.float32)


def graph(text, opset=18, **initializers):
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["" : {opset}]> g {text}')
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}{number}"
    for name, value in initializers.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    checker.check_model(model, full_check=True)
    return model


def run(model, images=IMAGES):
    checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def operators(model):
    return [node.op_type for node in model.graph.node]


def mean_over(axes, keepdims, opset=18, output="float[N, 2]"):
    if opset >= 18:
        return graph(
            f"(float[N, 2, 5, 4] x) => ({output} y) {{ y = ReduceMean <keepdims = {keepdims}> (x, axes) }}",
            opset,
            axes=np.array(axes, dtype=np.int64),
        )
    listed = ", ".join(map(str, axes))
    return graph(
        f"(float[N, 2, 5, 4] x) => ({output} y) {{ y = ReduceMean <keepdims = {keepdims}, axes = [{listed}]> (x) }}",
        opset,
    )


@pytest.mark.parametrize("opset", [13, 18, 23])
@pytest.mark.parametrize("axes", [[2, 3], [3, 2], [-2, -1], [-1, 2]], ids=str)
def test_a_spatial_mean_becomes_a_global_pool(axes, opset):
    for keepdims, output in ((0, "float[N, 2]"), (1, "float[N, 2, 1, 1]")):
        model = mean_over(axes, keepdims, opset, output)
        rewritten = rewrites.pool_globally(model)
        assert operators(rewritten) == ["GlobalAveragePool", "Flatten"][: 2 - keepdims]
        np.testing.assert_allclose(run(rewritten), run(model), rtol=1e-5, atol=1e-6)
        assert operators(model) == ["ReduceMean"]  # the model given is left alone


@pytest.mark.parametrize(
    ("axes", "output"), [([1, 2], "float[N, 4]"), ([3], "float[N, 2, 5]"), ([1, 2, 3], "float[N]")], ids=str
)
def test_other_means_stay(axes, output):
    model = mean_over(axes, 0, output=output)
    assert operators(rewrites.pool_globally(model)) == ["ReduceMean"]


def test_a_mean_over_the_last_axes_of_three_dimensions_stays():
    model = graph(
        "(float[2, 5, 4] x) => (float[2] y) { y = ReduceMean <keepdims = 0> (x, axes) }",
        axes=np.array([1, 2], dtype=np.int64),
    )
    assert operators(rewrites.pool_globally(model)) == ["ReduceMean"]


def conv_norm(
    text="c = Conv <pads = [1, 1, 1, 1]> (x, w) y = BatchNormalization <epsilon = 0.01> (c, g, b, m, v)", **more
):
    random = np.random.default_rng(1)
    arrays = {
        "w": random.normal(size=(3, 2, 3, 3)),
        "g": random.normal(size=3),
        "b": random.normal(size=3),
        "m": random.normal(size=3),
        "v": random.uniform(0.5, 2, size=3),
    } | more
    arrays = {name: value.astype(np.float32) for name, value in arrays.items()}
    return graph(f"(float[N, 2, 5, 4] x) => (float[N, 3, 5, 4] y) {{ {text} }}", **arrays)


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
def test_a_batch_norm_is_folded_into_the_convolution_before_it(bias):
    if bias:
        model = conv_norm(
            "c = Conv <pads = [1, 1, 1, 1]> (x, w, k) y = BatchNormalization (c, g, b, m, v)", k=np.arange(3)
        )
    else:
        model = conv_norm()
    folded = rewrites.fold_batch_norm(model)
    assert operators(folded) == ["Conv"]
    np.testing.assert_allclose(run(folded), run(model), rtol=1e-4, atol=1e-5)


def test_a_convolution_that_others_take_keeps_its_batch_norm():
    model = conv_norm(
        "c = Conv <pads = [1, 1, 1, 1]> (x, w) n = BatchNormalization (c, g, b, m, v) r = Relu (c) y = Add (n, r)"
    )
    assert operators(rewrites.fold_batch_norm(model)) == ["Conv", "BatchNormalization", "Relu", "Add"]


def test_what_nothing_takes_any_more_is_dropped():
    prepared = rewrites.prepare(conv_norm(unused=np.zeros(100)))
    assert {tensor.name for tensor in prepared.graph.initializer} == {"y_folded.weight", "y_folded.bias"}
    assert not prepared.graph.value_info


def test_prepare_computes_the_same():
    model = conv_norm()
    np.testing.assert_allclose(run(rewrites.prepare(model)), run(model), rtol=1e-4, atol=1e-5)


def classifier_graph():
    return graph(
        """(uint8[N, 5, 4, 2] x) => (float[N, 2] y) {
            t = Transpose <perm = [0, 3, 1, 2]> (x)
            f = Cast <to = 1> (t)
            n = Mul (f, scale)
            c = Conv (n, w)
            r = Relu (c)
            p = GlobalAveragePool (r)
            q = Flatten (p)
            l = Gemm <transB = 1> (q, m)
            o = Gather <axis = 1> (l, order)
            y = Softmax (o)
        }""",
        scale=np.float32([[[[0.1]]]]).reshape(1, 1, 1, 1),
        w=np.ones((3, 2, 3, 3), dtype=np.float32),
        m=np.ones((2, 3), dtype=np.float32),
        order=np.array([1, 0], dtype=np.int64),
    )


def test_what_lies_in_front_of_the_first_product_and_behind_the_last():
    model = classifier_graph()
    assert boundaries.head(model) == ["Transpose0", "Cast1", "Mul2"]
    assert boundaries.tail(model) == ["Gather8", "Softmax9"]


def test_a_softmax_inside_the_network_is_no_tail():
    model = graph(
        "(float[N, 3] x) => (float[N, 2] y) { a = MatMul (x, m) s = Softmax (a) y = MatMul (s, m2) }",
        m=np.ones((3, 3), dtype=np.float32),
        m2=np.ones((3, 2), dtype=np.float32),
    )
    assert boundaries.tail(model) == []
    assert Counter(boundaries.head(model)) == {}


def quantized_head(behind):
    return graph(
        f"""(float[N, 3] x) => (float[N, 2] y) {{
            l = MatMul (x, m)
            q = QuantizeLinear (l, s, z)
            {behind}
        }}""",
        m=np.arange(6, dtype=np.float32).reshape(3, 2),
        s=np.float32(0.5),
        z=np.uint8(7),
    )


@pytest.mark.parametrize(
    ("behind", "left"),
    [
        ("d = DequantizeLinear (q, s, z) y = Softmax (d)", ["MatMul", "Softmax"]),
        ("y = DequantizeLinear (q, s, z)", ["MatMul"]),
    ],
    ids=["softmax", "logits"],
)
def test_the_logits_lose_their_quantisation(behind, left):
    model = rewrites.keep_logits_float(quantized_head(behind), {"Softmax3"})
    assert operators(model) == left
    images = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    logits = images @ np.arange(6, dtype=np.float32).reshape(3, 2)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = powers / powers.sum(axis=1, keepdims=True) if left[-1] == "Softmax" else logits
    np.testing.assert_allclose(run(model, images), expected, rtol=1e-5)


def test_activations_inside_the_network_keep_theirs():
    model = quantized_head("d = DequantizeLinear (q, s, z) y = Relu (d)")
    assert operators(rewrites.keep_logits_float(model, set())) == operators(model)


NORMALISED = """(uint8[N, 5, 4, 2] x) => (float[N, 3, 3, 2] y) {
    t = Transpose <perm = [0, 3, 1, 2]> (x)
    f = Cast <to = 1> (t)
    n = Mul (f, scale)
    m = Add (n, shift)
    y = Conv (m, w)
}"""


def test_constants_of_the_preprocessing_are_repeated_along_the_width():
    arrays = {
        "scale": np.float32([0.1, 0.2]).reshape(1, 2, 1, 1),
        "shift": np.float32([1, -1]).reshape(2, 1, 1),
        "w": np.random.default_rng(0).normal(size=(3, 2, 3, 3)).astype(np.float32),
    }
    model = graph(NORMALISED, **arrays)
    wide = rewrites.widen_constants(model, boundaries.head(model))
    shapes = {tensor.name: list(tensor.dims) for tensor in wide.graph.initializer}
    assert shapes == {"n_wide": [1, 2, 1, 4], "m_wide": [1, 2, 1, 4], "w": [3, 2, 3, 3]}
    pixels = np.random.default_rng(1).integers(0, 256, (2, 5, 4, 2), dtype=np.uint8)
    np.testing.assert_array_equal(run(wide, pixels), run(model, pixels))
    assert rewrites.widen_constants(model, []) == model


def test_constants_stay_where_the_width_is_open():
    model = graph(
        "(float[N, 2, H, W] x) => (float[N, 2, H, W] y) { y = Mul (x, scale) }",
        scale=np.float32([0.1, 0.2]).reshape(1, 2, 1, 1),
    )
    assert rewrites.widen_constants(model, ["Mul0"]) == model


def test_nodes_without_a_name_are_given_one_each():
    model = graph("(float[N, 2] x) => (float[N, 2] y) { a = Relu (x) b = Relu (a) y = Add (a, b) }")
    for node in model.graph.node:
        node.name = ""
    model.graph.node[0].name = "Relu/b"
    assert [node.name for node in rewrites.name_nodes(model).graph.node] == ["Relu/b", "Relu/b/2", "Add/y"]
