"""What every node of an ONNX file gives for some inputs. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from kdeploy.parity.divergence import Node
from kdeploy.quantize.files import load_model

Values = dict[str, NDArray[np.generic]]


def nodes_of(path: Path) -> list[Node]:
    """The nodes of a file in the order in which they are computed; one without a name is called by its output."""
    return [
        Node(name=node.name or node.output[0], operator=node.op_type, outputs=tuple(filter(None, node.output)))
        for node in load_model(path).graph.node
    ]


def values_of(path: Path, inputs: NDArray[Any]) -> Values:
    """All tensors between input and output, by name, the outputs too: each marked as an output of the graph.

    Marked, they are no longer fused: what the runtime's optimiser alone gets wrong does not show here.
    """
    model = load_model(path)
    graph = model.graph
    there = {value.name for value in graph.output}
    for node in graph.node:
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name and name not in there)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {session.get_inputs()[0].name: np.ascontiguousarray(inputs)})
    return dict(zip(names, found, strict=True))
