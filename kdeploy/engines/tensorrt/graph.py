"""What a build must know of an ONNX file: its operators' precisions, and what TensorRT will not take."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from kdeploy.engines._onnx_file import Graph, Input, Node, read
from kdeploy.engines.base import Precision
from kdeploy.errors import UserError

__all__ = ["Graph", "Input", "Node", "precisions", "read", "refuse_uint8_before_cast"]

_UINT8 = 2
_PRECISIONS: dict[int, Precision] = {1: "float32", 10: "float16", 16: "bfloat16"}
"""TensorProto.DataType"""
_MULTIPLY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_PASS_ON = ("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze")
"""Operators that change a weight's shape and not its type."""


def precisions(graph: Graph) -> Counter[Precision | None]:
    """How many convolutions and matrix multiplications the graph has, by the precision that it gives them.

    None: those whose sides are both computed, such as attention's, where no weight tells it.
    """
    producers = {output: node for node in graph.nodes for output in node.outputs}
    return Counter(_precision(node, graph, producers) for node in graph.nodes if node.operator in _MULTIPLY)


def refuse_uint8_before_cast(graph: Graph, path: Path) -> None:
    """Raise UserError where something other than a Cast reads uint8 images, which TensorRT cannot do."""
    if graph.input.element != _UINT8:
        return
    for node in graph.nodes:
        if graph.input.name in node.inputs and node.operator != "Cast":
            raise UserError(
                f"{path}: {node.operator} {node.name!r} reads the uint8 input {graph.input.name!r}, and in TensorRT "
                "only a Cast can. Export the network with the Cast first, or with its preprocessing outside of the "
                "graph."
            )


def _precision(node: Node, graph: Graph, producers: dict[str, Node]) -> Precision | None:
    """Of one operator: int8 where both sides come from Q/DQ, else its weight's; None without a weight."""
    sides = [_origin(name, producers) for name in node.inputs[:2]]
    if sides and all(side in producers and producers[side].operator == "DequantizeLinear" for side in sides):
        return "int8"
    for side in sides:
        producer = producers.get(side)
        if producer is not None and producer.operator == "Cast" and producer.to is not None:
            if _origin(producer.input(0), producers) in graph.weights:
                return _PRECISIONS.get(producer.to)
        elif side in graph.weights:
            return _PRECISIONS.get(graph.weights[side])
        elif producer is not None and producer.operator == "DequantizeLinear" and producer.input(0) in graph.weights:
            # Weights alone are quantised: it computes in the type of the scale.
            return _PRECISIONS.get(graph.weights.get(producer.input(1), 0))
    return None


def _origin(name: str, producers: dict[str, Node]) -> str:
    """Where a tensor comes from, through operators that only change its shape."""
    for _ in range(len(producers)):  # a broken file may go round in a circle
        if name not in producers or producers[name].operator not in _PASS_ON:
            return name
        name = producers[name].input(0)
    return name
