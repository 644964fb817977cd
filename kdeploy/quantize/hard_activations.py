"""Hard-swish and hard-sigmoid in integers: written as an addition and a clip, which integer kernels know."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from kdeploy.quantize.graph import attributes, consumers, producers

_DEFAULTS = {"alpha": 0.2, "beta": 0.5}
"""Of ONNX's HardSigmoid."""
_SWISH_ALPHA, _SWISH_BETA = 1 / 6, 0.5


def lay_open(model: ModelProto) -> ModelProto:
    """Write hard-sigmoid, max(0, min(1, a x + b)), as a * Clip(x + b / a, 0, 1 / a), and hard-swish as x times that.

    ONNX Runtime has no integer kernel for either: between two quantised convolutions they are islands of float32, with
    a conversion on both shores. An addition it has, the clip is nothing but the range that the sum is quantised in,
    and the factor goes into that range's scale (`absorb_factors`).
    """
    result = copy.deepcopy(model)
    nodes: list[NodeProto] = []
    for node in result.graph.node:
        if node.op_type == "HardSigmoid":
            flags = attributes(node)
            alpha, beta = (cast("float", flags.get(name, default)) for name, default in _DEFAULTS.items())
            nodes.extend(_hard_sigmoid(result, node.name, node.input[0], node.output[0], alpha, beta))
        elif node.op_type == "HardSwish":
            gate = f"{node.output[0]}_gate"
            nodes.extend(_hard_sigmoid(result, f"{node.name}/gate", node.input[0], gate, _SWISH_ALPHA, _SWISH_BETA))
            nodes.append(helper.make_node("Mul", [node.input[0], gate], [node.output[0]], name=node.name))
        else:
            nodes.append(node)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result


def absorb_factors(model: ModelProto) -> ModelProto:
    """Multiply no quantised tensor by a positive constant: read its integers with another scale instead.

    Q -> DQ -> Mul by c -> Q -> DQ becomes Q -> DQ, whose scale is c times what it was: exact, and one rounding less.
    """
    result = copy.deepcopy(model)
    graph = result.graph
    makers, takers = producers(graph), consumers(graph)
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    for node in [node for node in graph.node if node.op_type == "Mul"]:
        inner, constant = (makers.get(name) for name in node.input)
        factor = _constant(constant, tensors)
        if factor is None:
            inner, constant, factor = constant, inner, _constant(inner, tensors)
        quantize = _only_taker(node, takers, outputs)
        dequantize = None if quantize is None else _only_taker(quantize, takers, outputs)
        if inner is None or inner.op_type != "DequantizeLinear" or factor is None or not factor > 0:
            continue
        if quantize is None or dequantize is None or quantize.op_type != "QuantizeLinear":
            continue
        if inner.input[1] not in tensors or tensors[inner.input[1]].dims:
            continue
        scale = numpy_helper.to_array(tensors[inner.input[1]]) * np.float32(factor)
        name = f"{dequantize.output[0]}_scale"
        graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), name))
        dequantize.input[:] = [inner.input[0], name, *inner.input[2:]]
        graph.node.remove(node)
        graph.node.remove(quantize)
        for left in (inner, constant):
            if left is not None and len(takers[left.output[0]]) == 1:
                graph.node.remove(left)
    return result


def _hard_sigmoid(model: ModelProto, name: str, taken: str, given: str, alpha: float, beta: float) -> list[NodeProto]:
    values = {"shift": beta / alpha, "low": 0.0, "high": 1 / alpha, "alpha": alpha}
    for key, value in values.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype=np.float32), f"{given}_{key}"))
    shifted, clipped = f"{given}_shifted", f"{given}_clipped"
    return [
        helper.make_node("Add", [taken, f"{given}_shift"], [shifted], name=f"{name}/Add"),
        helper.make_node("Clip", [shifted, f"{given}_low", f"{given}_high"], [clipped], name=f"{name}/Clip"),
        helper.make_node("Mul", [clipped, f"{given}_alpha"], [given], name=f"{name}/Mul"),
    ]


def _constant(node: NodeProto | None, tensors: Mapping[str, TensorProto]) -> float | None:
    """The one number that a dequantised constant is."""
    if node is None or node.op_type != "DequantizeLinear" or any(name not in tensors for name in node.input):
        return None
    parts = [numpy_helper.to_array(tensors[name]) for name in node.input]
    if any(part.size != 1 for part in parts):
        return None
    value, scale, *zero = (float(part.reshape(-1)[0]) for part in parts)
    return (value - (zero[0] if zero else 0.0)) * scale


def _only_taker(node: NodeProto, takers: Mapping[str, Sequence[NodeProto]], outputs: set[str]) -> NodeProto | None:
    found = takers[node.output[0]]
    return found[0] if len(found) == 1 and node.output[0] not in outputs else None
