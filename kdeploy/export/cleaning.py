"""What the exporter notes for its developers is used for good names, and then stripped from what is shipped."""

from __future__ import annotations

import ast
from collections import Counter

from onnx import ModelProto, NodeProto

_SCOPES = "pkg.torch.onnx.name_scopes"


def clean(model: ModelProto) -> None:
    """Name the nodes after their modules, then strip stack traces, scopes and inner shapes. In place."""
    _name_nodes(model)
    graph = model.graph
    del model.metadata_props[:]
    del graph.metadata_props[:]
    del graph.value_info[:]
    del graph.quantization_annotation[:]
    model.doc_string = graph.doc_string = ""
    graph.name = "kdeploy"
    for part in [*graph.node, *graph.input, *graph.output, *graph.initializer]:
        del part.metadata_props[:]
        part.doc_string = ""


def _name_nodes(model: ModelProto) -> None:
    """`network.layer1.0.conv1/Conv`: the path of the torch module and the operator, numbered where it repeats."""
    seen: Counter[str] = Counter()
    for node in model.graph.node:
        name = "/".join(part for part in (module_path(node), node.op_type) if part)
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"


def module_path(node: NodeProto) -> str:
    """The torch module that a node computes: by its weight, else by the scope that the exporter noted; "" at the top.

    A convolution with its batch norm folded in carries the norm's scope and the convolution's weight.
    """
    if len(node.input) > 1 and node.input[1].endswith(".weight"):
        return str(node.input[1]).removesuffix(".weight")
    noted = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
    scopes = ast.literal_eval(noted)  # from the outermost module, "", to the operation itself
    return str(scopes[-2]) if len(scopes) > 1 else ""
