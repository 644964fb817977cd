"""What stays float32 at both ends of a network: the preprocessing in front and the softmax behind."""

from __future__ import annotations

from onnx import ModelProto

from kdeploy.quantize.graph import consumers

# Where a network proper begins and ends: the products that int8 is for.
PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_ON_LOGITS = frozenset(
    {"Softmax", "LogSoftmax", "Sigmoid", "Gather", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity"}
    | {"Concat", "ReduceLogSumExp", "Sub"}  # the mean of several networks' probabilities
)


def head(model: ModelProto) -> list[str]:
    """Names of the nodes between the input and the first products: preprocessing, which must stay exact."""
    graph = model.graph
    before = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer} | {""}
    names = []
    for node in graph.node:
        if node.op_type not in PRODUCTS and before.issuperset(node.input):
            before.update(node.output)
            names.append(node.name)
    return names


def tail(model: ModelProto) -> list[str]:
    """Names of the nodes between the logits and the output: softmax, the order of classes, the mean of an ensemble."""
    graph = model.graph
    takers = consumers(graph)
    outputs = {value.name for value in graph.output}
    names: set[str] = set()
    for node in reversed(graph.node):
        ends = all(
            all(taker.name in names for taker in takers[output]) and (takers[output] or output in outputs)
            for output in node.output
        )
        if node.op_type in _ON_LOGITS and ends:
            names.add(node.name)
    return [node.name for node in graph.node if node.name in names]
