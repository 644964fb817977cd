"""Small ONNX files in each precision: a convolution, global pooling and a matrix multiplication."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS, CLASSES, SIZE = 4, 3, 8
_ELEMENTS = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}


def save(path: Path, precision: str = "float32", *, batch: int | str = "batch", opset: int = 18) -> Path:
    """float32 `[B, 1, 8, 8]` to logits `[B, 3]`, with weights of this precision; int8: Q/DQ around both operators."""
    random = np.random.default_rng(3)
    weights = {
        "filters": random.standard_normal((CHANNELS, 1, 3, 3)).astype(np.float32),
        "matrix": random.standard_normal((CHANNELS, CLASSES)).astype(np.float32),
    }
    nodes, initializers, named = [], [], dict.fromkeys(weights, "")
    first, second = "image", "flat"
    if precision == "int8":
        initializers += [
            numpy_helper.from_array(np.float32(0.02), "scale"),
            numpy_helper.from_array(np.int8(0), "zero"),
        ]
        for name, values in weights.items():
            rounded = np.clip(np.rint(values / 0.02), -127, 127).astype(np.int8)
            initializers.append(numpy_helper.from_array(rounded, name))
            nodes.append(helper.make_node("DequantizeLinear", [name, "scale", "zero"], [f"{name}_dq"]))
            named[name] = f"{name}_dq"
    else:
        element = _ELEMENTS[precision]
        for name, values in weights.items():
            initializers.append(helper.make_tensor(name, element, values.shape, values.ravel()))
            named[name] = name
        if precision != "float32":
            nodes.append(helper.make_node("Cast", ["image"], ["low"], to=element))
            first = "low"

    def quantised(tensor: str) -> str:
        if precision != "int8":
            return tensor
        nodes.append(helper.make_node("QuantizeLinear", [tensor, "scale", "zero"], [f"{tensor}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{tensor}_q", "scale", "zero"], [f"{tensor}_dq"]))
        return f"{tensor}_dq"

    nodes.append(helper.make_node("Conv", [quantised(first), named["filters"]], ["features"], name="stem"))
    nodes.append(helper.make_node("GlobalAveragePool", ["features"], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], [second]))
    answer = "logits" if precision in ("float32", "int8") else "low_logits"
    nodes.append(helper.make_node("MatMul", [quantised(second), named["matrix"]], [answer], name="head"))
    if answer != "logits":
        nodes.append(helper.make_node("Cast", [answer], ["logits"], to=TensorProto.FLOAT))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 1, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def save_uint8_transposed(path: Path) -> Path:
    """A graph that moves uint8 images before it casts them, which TensorRT does not take."""
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2], name="permute"),
        helper.make_node("Cast", ["planes"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["number", "filters"], ["features"]),
    ]
    filters = numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "filters")
    graph = helper.make_graph(
        nodes,
        "uint8",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", SIZE, SIZE, 1])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, None)],
        [filters],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path
