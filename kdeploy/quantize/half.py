"""float32 ONNX to float16 ONNX, both ends and chosen operators in float32."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, shape_inference
from onnxruntime.quantization.onnx_model import ONNXModel

from kdeploy import events
from kdeploy.errors import UserError, nearest
from kdeploy.quantize import boundaries, rewrites
from kdeploy.quantize.files import load_model, opset_version, save_model
from kdeploy.quantize.graph import attributes, constants, producers
from kdeploy.quantize.quiet import quiet

_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class HalfModel:
    """A float16 graph on disk."""

    path: Path
    sha256: str
    opset: int
    kept_float32: tuple[str, ...]
    """Names of the nodes between the first product and the logits that compute in float32."""


def to_float16(model: Path, target: Path, *, keep_float32: Sequence[str] = ()) -> HalfModel:
    """Write a float16 version of the float32 graph `model` to `target`; inputs and outputs keep their types.

    Preprocessing in front of the first product and the softmax behind the last stay float32. So do operators that
    ONNX Runtime's converter knows to have no float16 form, and layers with weights that float16 cannot hold, which is
    said.

    keep_float32: types of operators that stay float32 as well. Raises UserError for a file that can't be read, and
    for an operator that the graph has none of.
    """
    source = rewrites.strip_value_info(rewrites.name_nodes(load_model(model)))
    kinds = {node.op_type for node in source.graph.node}
    for kind in keep_float32:
        if kind not in kinds:
            raise UserError(f"{model} has no operator {kind!r} to keep in float32.{nearest(kind, kinds)}")
    ends = {*boundaries.head(source), *boundaries.tail(source)}
    too_large = _too_large(source)
    if too_large:
        events.decided("float32", ", ".join(sorted(too_large)), f"weights beyond {_LARGEST:.0f} are none in float16")
    convert, blocked = _converter()
    kept_kinds = {*blocked, *keep_float32}
    with quiet():
        converted = ONNXModel(
            convert(
                source,
                keep_io_types=True,
                op_block_list=sorted(kept_kinds),
                node_block_list=sorted(ends | too_large),
            )
        )
        converted.topological_sort()
    kept = [
        node.name
        for node in source.graph.node
        if node.name not in ends and (node.op_type in kept_kinds or node.name in too_large)
    ]
    finished = rewrites.strip_value_info(_straighten(converted.model))
    return HalfModel(target, save_model(finished, target), opset_version(finished), tuple(kept))


def _straighten(model: ModelProto) -> ModelProto:
    """Take a float32 tensor as it is where the converter casts it to float16 and back, between two nodes that are both
    kept in float32: what they are kept for would be lost on the way."""
    graph = model.graph
    inferred = shape_inference.infer_shapes(model).graph
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    makers, outputs = producers(graph), {value.name for value in graph.output}
    straight: dict[str, str] = {}
    for node in [node for node in graph.node if _casts_to(node, TensorProto.FLOAT)]:
        inner = makers.get(node.input[0])
        if inner is None or not _casts_to(inner, TensorProto.FLOAT16) or types.get(inner.input[0]) != TensorProto.FLOAT:
            continue
        if node.output[0] in outputs:
            node.CopyFrom(helper.make_node("Identity", inner.input[:1], node.output[:1], name=node.name))
        else:
            straight[node.output[0]] = inner.input[0]
    for node in graph.node:
        node.input[:] = [straight.get(name, name) for name in node.input]
    _drop_idle_casts(model)
    return model


def _drop_idle_casts(model: ModelProto) -> None:
    graph = model.graph
    used = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if node.op_type == "Cast" and used.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            used.update(node.input)


def _casts_to(node: NodeProto, element_type: int) -> bool:
    return node.op_type == "Cast" and attributes(node)["to"] == element_type


def _too_large(model: ModelProto) -> set[str]:
    """Names of the nodes with a constant that float16 has no number for."""
    large = {
        name
        for name, value in constants(model.graph).items()
        if value.dtype == np.float32 and value.size and np.abs(value).max() > _LARGEST
    }
    return {node.name for node in model.graph.node if not large.isdisjoint(node.input)}


def _converter() -> tuple[Callable[..., Any], list[str]]:
    """ONNX Runtime's converter, and the operators that it leaves in float32 by itself.

    Its package puts itself on the path of modules when it is imported, which is undone here.
    """
    path = list(sys.path)
    try:
        module = importlib.import_module("onnxruntime.transformers.float16")
    finally:
        sys.path[:] = path
    return module.convert_float_to_float16, list(module.DEFAULT_OP_BLOCK_LIST)
