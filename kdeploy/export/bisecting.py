"""What torch computes at each node of the graph that was traced, under the names that the ONNX file has for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from kdeploy.export.intermediate import Values
from kdeploy.export.to_onnx import Translation
from kdeploy.parity.divergence import Divergence, Node, first_divergence


def traced_values(translation: Translation, inputs: NDArray[Any]) -> Values:
    """The tensors of the traced graph by the names of its nodes, which are those of the ONNX file's tensors."""
    recorder = _Recorder(translation.program.module())
    with torch.no_grad():
        recorder.run(torch.from_numpy(inputs))
    return recorder.values


def tracing_divergence(
    translation: Translation, inputs: NDArray[Any], traced: Values, *, tolerance: float
) -> Divergence | None:
    """The first module whose output the trace does not reproduce: its forward does something else while it is traced.

    None where every module agrees.
    """
    order: list[str] = []
    eager: Values = {}

    def keep(path: str) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and path not in eager:
                order.append(path)
                eager[path] = output.detach().numpy()

        return hook

    handles = [module.register_forward_hook(keep(path)) for path, module in translation.wrapper.named_modules() if path]
    try:
        with torch.no_grad():
            translation.wrapper(torch.from_numpy(inputs))
    finally:
        for handle in handles:
            handle.remove()
    kinds = {path: type(module).__name__ for path, module in translation.wrapper.named_modules()}
    last = _last_nodes(translation.program.graph)
    found = {path: traced[node] for path, node in last.items() if node in traced}
    nodes = [Node(name=f"{path}/{kinds[path]}", operator=kinds[path], outputs=(path,)) for path in order]
    return first_divergence(nodes, eager, found, tolerance=tolerance)


class _Recorder(fx.Interpreter):
    """Runs a graph node by node and keeps what each gives."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: Values = {}

    def run_node(self, n: fx.Node) -> Any:
        """As the interpreter does; tensors are kept."""
        result = super().run_node(n)
        if isinstance(result, torch.Tensor) and n.op == "call_function":
            self.values[n.name] = np.array(result.detach().numpy())
        return result


def _last_nodes(graph: fx.Graph) -> dict[str, str]:
    """For each module the last node that was traced inside it, which gives its output."""
    found = {}
    for node in graph.nodes:
        for path, _ in (node.meta.get("nn_module_stack") or {}).values():
            if path:
                found[str(path)] = node.name
    return found
