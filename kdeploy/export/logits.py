"""The logits of a graph that gives probabilities, for proofs that probabilities are too coarse for."""

from __future__ import annotations

from pathlib import Path

from onnx import helper

from kdeploy.errors import UserError
from kdeploy.quantize.files import load_model, save_model
from kdeploy.quantize.rewrites import drop_unused


def write_logits_graph(model: Path, target: Path) -> None:
    """Write `model` without the softmax at its end to `target`: the same nodes and weights, the logits as output.

    In float32, log p tells logits apart down to some 1e-7, whatever their scale. An untrained network can give
    logits of 1e-9, all of whose probabilities are the same; parity with torch has to be shown on the logits then.
    Raises UserError where the graph does not end in a softmax, and as `load_model`.
    """
    proto = load_model(model)
    (output,) = proto.graph.output
    softmax = next((node for node in proto.graph.node if output.name in node.output), None)
    if softmax is None or softmax.op_type != "Softmax":
        raise UserError(f"{model} does not end in a softmax, so it has no logits to show.")
    sizes = [size.dim_value or size.dim_param or None for size in output.type.tensor_type.shape.dim]
    logits = helper.make_tensor_value_info(softmax.input[0], output.type.tensor_type.elem_type, sizes)
    proto.graph.node.remove(softmax)
    proto.graph.output[0].CopyFrom(logits)
    save_model(drop_unused(proto), target)
