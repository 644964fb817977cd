"""Where Q/DQ pairs stand: around which operators of a graph, as each scheme wants it."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from onnx import ModelProto, NodeProto
from onnxruntime.quantization import QDQQuantizer, QuantType, TensorsData
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from kdeploy.quantize import ranges
from kdeploy.quantize.boundaries import PRODUCTS
from kdeploy.quantize.graph import constants, consumers, producers
from kdeploy.quantize.quiet import quiet
from kdeploy.quantize.schemes import Scheme

_TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
_LEAST_RANGE = 1e-4
"""QNN wants no smaller range: https://onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html"""
_PASS_ON = frozenset(
    {"Relu", "Clip", "MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Slice", "Pad"}
    | {"Split", "Gather", "Resize"}
)
"""Operators that hand values on: int8 adds no error to them beyond that of their neighbours."""


@dataclass(frozen=True)
class Quantizable:
    """A float32 graph with all that its Q/DQ form is decided by."""

    model: ModelProto
    ranges: TensorsData
    scheme: Scheme
    operators: frozenset[str]
    """Types of operators that may be quantised."""
    head: frozenset[str]
    """Names of the nodes in front of the first product, which stay float32."""
    tail: frozenset[str]
    """Names of those behind the logits, which do too."""

    def layers(self) -> list[str]:
        """Names of the nodes that int8 changes the values of, in the order in which they are computed."""
        return [
            node.name
            for node in self.model.graph.node
            if node.op_type in self.operators - _PASS_ON and node.name not in self.head | self.tail
        ]


def operators_of(model: ModelProto, scheme: Scheme) -> set[str]:
    """The types of operators that this scheme quantises in this graph."""
    if scheme.placement == "products and residuals":
        return {*PRODUCTS, "Add"}
    if scheme.placement == "everything":
        return {node.op_type for node in model.graph.node} - {"Cast", "Constant", "Shape"}
    return {*QDQRegistry, *QLinearOpsRegistry}


def write_pairs(graph: Quantizable, keep_float: Collection[str] = ()) -> ModelProto:
    """The graph with Q/DQ pairs. keep_float: names of nodes that stay float32 beside head and tail."""
    scheme = graph.scheme
    kept = {*graph.head, *graph.tail, *keep_float, *_inert_additions(graph)}
    options: dict[str, Any] = {
        "ActivationSymmetric": scheme.symmetric_activations,
        "AddQDQPairToWeight": scheme.float_weights,
        "DedicatedQDQPair": scheme.float_weights,
        "QuantizeBias": not scheme.float_weights,
        "TensorQuantOverrides": _per_tensor(graph.model, scheme),
    }
    if scheme.placement == "everything":
        options["MinimumRealRange"] = _LEAST_RANGE
    if scheme.placement == "products and residuals":
        options["OpTypesToExcludeOutputQuantization"] = sorted(graph.operators)
    with quiet():
        quantizer = QDQQuantizer(
            copy.deepcopy(graph.model),
            scheme.per_channel,
            scheme.reduce_range,
            _TYPES[scheme.weight_type],
            _TYPES[scheme.activation_type],
            ranges.copy_of(graph.ranges),
            [],
            sorted(kept),
            sorted(graph.operators),
            options,
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        written: ModelProto = quantizer.model.model
    return _free_branches(written) if scheme.placement == "products and residuals" else written


def _per_tensor(model: ModelProto, scheme: Scheme) -> dict[str, list[dict[str, Any]]]:
    """The weights that have one scale although the scheme has one for each channel."""
    values = constants(model.graph)
    single = [
        node
        for node in model.graph.node
        if scheme.per_channel and node.op_type in PRODUCTS - scheme.per_channel_operators
    ]
    how = {"quant_type": _TYPES[scheme.weight_type], "symmetric": scheme.weight_type == "int8"}
    return {node.input[1]: [dict(how)] for node in single if node.input[1] in values}


def _inert_additions(graph: Quantizable) -> set[str]:
    """Under a scheme that quantises residual additions: the additions that are none, such as of a constant."""
    if graph.scheme.placement != "products and residuals":
        return set()
    values, makers = constants(graph.model.graph), producers(graph.model.graph)
    return {
        node.name
        for node in graph.model.graph.node
        if node.op_type == "Add"
        and (any(name in values for name in node.input) or not any(_product(makers, name) for name in node.input))
    }


def _product(makers: dict[str, NodeProto], name: str) -> bool:
    maker = makers.get(name)
    return maker is not None and maker.op_type in PRODUCTS


def _free_branches(model: ModelProto) -> ModelProto:
    """Take the Q/DQ pair from the branch of each residual addition that a product computes for it alone.

    TensorRT then fuses product and addition, and reads the other branch as int8. Where both branches end in such a
    product, the second keeps its pair.
    """
    graph = model.graph
    makers, takers = producers(graph), consumers(graph)
    for addition in [node for node in graph.node if node.op_type == "Add"]:
        for place, name in enumerate(addition.input):
            dequantize = makers.get(name)
            quantize = makers.get(dequantize.input[0]) if dequantize is not None else None
            if dequantize is None or quantize is None or quantize.op_type != "QuantizeLinear":
                continue
            alone = len(takers[quantize.input[0]]) == 1 and len(takers[name]) == 1
            if alone and _product(makers, quantize.input[0]):
                addition.input[place] = quantize.input[0]
                graph.node.remove(quantize)
                graph.node.remove(dequantize)
                break
    return model
