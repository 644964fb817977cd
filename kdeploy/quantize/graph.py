"""Reading an ONNX graph: who makes a tensor, who takes it, which values are constant."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper


def producers(graph: GraphProto) -> dict[str, NodeProto]:
    """The node that makes each tensor."""
    return {name: node for node in graph.node for name in node.output if name}


def consumers(graph: GraphProto) -> Mapping[str, Sequence[NodeProto]]:
    """The nodes that take each tensor; no entry is missing, a tensor that nobody takes has an empty one."""
    takers: defaultdict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            if name:
                takers[name].append(node)
    return takers


def constants(graph: GraphProto) -> dict[str, NDArray[np.generic]]:
    """The initializers as arrays."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def attributes(node: NodeProto) -> dict[str, object]:
    """A node's attributes as Python values; those at their default are absent."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def input_shape(graph: GraphProto) -> tuple[str, int, tuple[int | None, ...]]:
    """Name, element type and shape of the one input that is no initializer; None for sizes left open.

    Raises ValueError where the graph has not exactly one.
    """
    initial = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initial]
    if len(inputs) != 1:
        raise ValueError(f"it has {len(inputs)} inputs")
    tensor = inputs[0].type.tensor_type
    sizes = tuple(size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim)
    return inputs[0].name, tensor.elem_type, sizes


def only_for(model: ModelProto, tensor: str) -> ModelProto:
    """The part of a graph that computes one tensor, as its only output; the tensor's shape is left open."""
    made = producers(model.graph)
    wanted, needed = [tensor], set[str]()
    while wanted:
        node = made.get(wanted.pop())
        if node is not None and needed.isdisjoint(node.output):
            needed.update(node.output)
            wanted.extend(node.input)
    result = ModelProto()
    result.CopyFrom(model)
    kept = [node for node in result.graph.node if not needed.isdisjoint(node.output)]
    used = {name for node in kept for name in node.input}
    tensors = [initial for initial in result.graph.initializer if initial.name in used]
    for field, values in (("node", kept), ("initializer", tensors), ("value_info", []), ("output", [])):
        copies = [copy.deepcopy(value) for value in values]
        del getattr(result.graph, field)[:]
        getattr(result.graph, field).extend(copies)
    result.graph.output.append(helper.make_empty_tensor_value_info(tensor))
    return result
