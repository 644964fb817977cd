"""ONNX files as others write them, made without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHAPE = (3, 16, 12)


def network(
    *,
    batch: int | str = "N",
    opset: int = 17,
    softmax: bool = False,
    dtype: int = TensorProto.FLOAT,
    last: bool = False,
) -> onnx.ModelProto:
    """Convolution, ReLU, pooling, a reshape that knows the batch, and a linear layer of four classes.

    last: channels last at the input, as converters from TensorFlow write it.
    """
    random = np.random.default_rng(0)
    weights = {
        "w1": random.standard_normal((8, 3, 3, 3)).astype(np.float32) / 3,
        "b1": random.standard_normal(8).astype(np.float32),
        "w2": random.standard_normal((8, 4)).astype(np.float32),
        "b2": random.standard_normal(4).astype(np.float32),
        "flat": np.array([batch if isinstance(batch, int) else -1, 8], np.int64),
    }
    front, fed = [], "x"
    if last:
        front, fed = [helper.make_node("Transpose", ["x"], ["planes"], perm=[0, 3, 1, 2])], "planes"
    if dtype == TensorProto.UINT8:
        front.append(helper.make_node("Cast", [fed], ["floats"], to=TensorProto.FLOAT))
        fed = "floats"
    nodes = [
        *front,
        helper.make_node("Conv", [fed, "w1", "b1"], ["c"], name="conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Reshape", ["p", "flat"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["probabilities" if not softmax else "z"], name="fc"),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["z"], ["probabilities"], axis=-1, name="softmax"))
    channels, height, width = SHAPE
    sizes = [batch, height, width, channels] if last else [batch, channels, height, width]
    graph = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info("x", dtype, sizes)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [batch, 4])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def write(path: Path, **options: object) -> Path:
    """The same as a file."""
    path.write_bytes(network(**options).SerializeToString())  # type: ignore[arg-type]
    return path
