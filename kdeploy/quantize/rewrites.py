"""Rewrites of ONNX graphs that compute the same and quantise better: each takes a model and returns a new one."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from itertools import count
from typing import cast

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper, shape_inference

from kdeploy.quantize.graph import attributes, constants, consumers, producers

Floats = NDArray[np.float32]


def prepare(model: ModelProto) -> ModelProto:
    """All rewrites that come before quantising, in the order in which they help each other."""
    return drop_unused(strip_value_info(fold_batch_norm(pool_globally(name_nodes(model)))))


def name_nodes(model: ModelProto) -> ModelProto:
    """Give each node that has none a name, after what it makes: layers are told apart by it."""
    result = copy.deepcopy(model)
    taken = {node.name for node in result.graph.node}
    for node in result.graph.node:
        if not node.name:
            node.name = next(name for name in _numbered(f"{node.op_type}/{node.output[0]}") if name not in taken)
            taken.add(node.name)
    return result


def strip_value_info(model: ModelProto) -> ModelProto:
    """Remove the shapes noted for inner tensors: rewrites make them stale, and the quantiser trusts them."""
    result = copy.deepcopy(model)
    del result.graph.value_info[:]
    return result


def drop_unused(model: ModelProto) -> ModelProto:
    """Remove initializers that nothing takes any more."""
    result = copy.deepcopy(model)
    used = {name for node in result.graph.node for name in node.input} | {value.name for value in result.graph.output}
    kept = [tensor for tensor in result.graph.initializer if tensor.name in used]
    del result.graph.initializer[:]
    result.graph.initializer.extend(kept)
    return result


def pool_globally(model: ModelProto) -> ModelProto:
    """Turn `ReduceMean` over the two spatial axes into `GlobalAveragePool`, which the quantiser knows.

    The exporter writes global pooling so. `keepdims=0` becomes a `Flatten` behind the pool. Both forms are known:
    axes as an input (opset 18 and later) and as an attribute. Only tensors that shape inference knows to have four
    dimensions are touched.
    """
    result = copy.deepcopy(model)
    values = constants(result.graph)
    shapes = _shapes(result)
    nodes: list[NodeProto] = []
    for node in result.graph.node:
        if node.op_type == "ReduceMean" and len(shapes.get(node.input[0], ())) == 4 and _spatial(node, values):
            nodes.extend(_pool(node))
        else:
            nodes.append(node)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result


def fold_batch_norm(model: ModelProto) -> ModelProto:
    """Fold each `BatchNormalization` into the `Conv` before it, where nothing else takes the convolution's output.

    With s = gamma / sqrt(var + epsilon) per output channel: W' = s W and b' = s (b - mean) + beta. torch's exporter
    does this by itself; graphs from elsewhere may still need it, and the quantiser does not.
    """
    result = copy.deepcopy(model)
    graph = result.graph
    makers, takers, values = producers(graph), consumers(graph), constants(graph)
    outputs = {value.name for value in graph.output}
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        conv = makers.get(norm.input[0])
        if conv is None or conv.op_type != "Conv" or len(takers[conv.output[0]]) != 1 or conv.output[0] in outputs:
            continue
        if any(name not in values for name in [*conv.input[1:], *norm.input[1:5]] if name):
            continue
        weight, bias = _folded(conv, norm, values)
        name = f"{norm.output[0]}_folded"
        graph.initializer.extend(
            [numpy_helper.from_array(weight, f"{name}.weight"), numpy_helper.from_array(bias, f"{name}.bias")]
        )
        conv.input[:] = [conv.input[0], f"{name}.weight", f"{name}.bias"]
        conv.output[0] = norm.output[0]
        graph.node.remove(norm)
    return result


def keep_logits_float(model: ModelProto, tail: set[str]) -> ModelProto:
    """Remove the Q/DQ pair behind the classifier, so that its logits come out of the integer product as float32.

    Eight bits for all logits leave ties that the network did not have; the runtime's integer `Gemm` writes float32
    at no cost. `tail`: names of the nodes behind the classifier (`Softmax`, ...).
    """
    result = copy.deepcopy(model)
    graph = result.graph
    makers, takers = producers(graph), consumers(graph)
    outputs = {value.name for value in graph.output}
    for dequantize in [node for node in graph.node if node.op_type == "DequantizeLinear"]:
        quantize = makers.get(dequantize.input[0])
        product = makers.get(quantize.input[0]) if quantize and quantize.op_type == "QuantizeLinear" else None
        if quantize is None or product is None or product.op_type not in ("Gemm", "MatMul"):
            continue
        last = all(taker.name in tail for taker in takers[dequantize.output[0]])
        if not last or len(takers[quantize.output[0]]) != 1 or len(takers[product.output[0]]) != 1:
            continue
        if product.output[0] in outputs:
            continue
        product.output[0] = dequantize.output[0]
        graph.node.remove(quantize)
        graph.node.remove(dequantize)
    return result


def widen_constants(model: ModelProto, nodes: Collection[str]) -> ModelProto:
    """Repeat each channel's constant along the width in these additions and multiplications: preprocessing.

    ONNX Runtime runs integer convolutions with channels last, and moves the transposition of the images in front of
    the normalisation away. What is left there is an addition of `[3]` to the last dimension, in steps of three values:
    1.2 ms for an image of 224x224, half of what a small network takes. With `[width, 3]` it is a twentieth of that.
    nodes: their names. Only constants of `[1, C, 1, 1]` on images of a known width are touched.
    """
    result = copy.deepcopy(model)
    graph = result.graph
    values, shapes = constants(graph), _shapes(result)
    for node in graph.node:
        if node.name not in nodes or node.op_type not in ("Add", "Mul", "Sub", "Div"):
            continue
        for place, name in enumerate(node.input):
            width = (shapes.get(node.output[0]) or [None])[-1]
            constant = values.get(name)
            if width is None or constant is None or not _one_for_each_channel(constant):
                continue
            wide = np.repeat(constant.reshape(1, -1, 1, 1), width, axis=3)
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(wide), f"{node.output[0]}_wide"))
            node.input[place] = f"{node.output[0]}_wide"
    return drop_unused(result)


def _one_for_each_channel(constant: NDArray[np.generic]) -> bool:
    shape = constant.shape[-3:]
    return len(shape) == 3 and constant.size == shape[0] > 1


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}/{number}" for number in count(2))


def _shapes(model: ModelProto) -> dict[str, list[int | None]]:
    """The shape of each tensor, as far as shape inference knows it; None for sizes left open."""
    graph = shape_inference.infer_shapes(model).graph
    return {
        value.name: [size.dim_value or None for size in value.type.tensor_type.shape.dim]
        for value in [*graph.input, *graph.value_info, *graph.output]
        if value.type.tensor_type.HasField("shape")
    }


def _spatial(node: NodeProto, values: dict[str, NDArray[np.generic]]) -> bool:
    """Whether a mean over four dimensions is over the last two."""
    if len(node.input) > 1 and node.input[1]:
        axes = values.get(node.input[1])
        listed = [] if axes is None else axes.reshape(-1).tolist()
    else:
        listed = list(cast("list[int]", attributes(node).get("axes", [])))
    return sorted(axis % 4 for axis in listed) == [2, 3]


def _pool(mean: NodeProto) -> list[NodeProto]:
    """The pool that a spatial mean is, and where it drops the two dimensions, a `Flatten`."""
    output = mean.output[0]
    if attributes(mean).get("keepdims", 1):
        return [helper.make_node("GlobalAveragePool", [mean.input[0]], [output], name=mean.name)]
    pooled = f"{output}_pooled"
    return [
        helper.make_node("GlobalAveragePool", [mean.input[0]], [pooled], name=mean.name),
        helper.make_node("Flatten", [pooled], [output], name=f"{mean.name}/Flatten", axis=1),
    ]


def _folded(conv: NodeProto, norm: NodeProto, values: dict[str, NDArray[np.generic]]) -> tuple[Floats, Floats]:
    weight = cast("Floats", values[conv.input[1]])
    gamma, beta, mean, variance = (cast("Floats", values[name]) for name in norm.input[1:5])
    has_bias = len(conv.input) > 2 and conv.input[2]
    bias = cast("Floats", values[conv.input[2]]) if has_bias else np.zeros_like(mean)
    epsilon = cast("float", attributes(norm).get("epsilon", 1e-5))
    scale = gamma / np.sqrt(variance + np.float32(epsilon))
    folded = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    return folded.astype(np.float32), (scale * (bias - mean) + beta).astype(np.float32)
