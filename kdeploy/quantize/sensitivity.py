"""What int8 costs in each layer alone, and which layers to leave in float32 so that accuracy holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from kdeploy import events
from kdeploy.quantize.running import Running
from kdeploy.quantize.static import Calibrated

Output = Literal["probabilities", "logits"]


@dataclass(frozen=True)
class LayerCost:
    """One layer in int8 and all others in float32."""

    layer: str
    """The node's name."""
    operator: str
    place: int
    """In the order of computation, from 0."""
    divergence: float
    """Mean Kullback-Leibler divergence of its probabilities from float32's, in nats."""
    same_class: float
    """Share of images of which float32's class is named."""
    accuracy_points: float | None
    """Change of accuracy; None without labels."""

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class Step:
    """A mixed graph that was tried."""

    kept_float32: tuple[str, ...]
    score: float


def layer_costs(
    calibrated: Calibrated, images: NDArray[Any], labels: NDArray[np.int64] | None, *, output: Output
) -> list[LayerCost]:
    """Quantise each layer alone and measure what that changes, in the order in which layers are computed.

    The divergence tells layers apart long before the accuracy of some hundred images does, most of which no single
    layer turns over. Biases are not corrected here: that is done for a whole network.

    images: `[N, ...]` as the graph takes them. labels: `[N]`, None where nobody knows them. output: of the graph.
    """
    plain = replace(calibrated, corrects_biases=False)
    reference = log_probabilities(Running(calibrated.float32).run(images), output)
    operators = {node.name: node.op_type for node in calibrated.float32.graph.node}
    layers, costs = plain.layers, []
    with events.task("sensitivity of layers", len(layers)) as bar:
        for place, layer in enumerate(layers):
            alone = plain.int8(keep_float=frozenset(layers) - {layer})
            found = log_probabilities(Running(alone).run(images), output)
            costs.append(_cost(layer, operators[layer], place, reference, found, labels))
            bar.advance()
    return costs


def by_cost(costs: list[LayerCost]) -> list[LayerCost]:
    """The layers that lose most first."""
    return sorted(costs, key=lambda cost: -cost.divergence)


def keep_until(
    calibrated: Calibrated, costs: list[LayerCost], score: Callable[[ModelProto], float], least: float
) -> tuple[ModelProto, list[Step]]:
    """Int8, with the most sensitive layers in float32, one more at a time until the measured score is at least `least`.

    Every graph on the way is measured, the first with no layer in float32. score: of a Q/DQ graph, such as its
    accuracy. Where not even the last holds, all layers are float32 in it, and it is returned: the caller compares.
    """
    steps: list[Step] = []
    order = [cost.layer for cost in by_cost(costs)]
    with events.task("mixed precision", len(order) + 1) as bar:
        for kept in range(len(order) + 1):
            model = calibrated.int8(keep_float=frozenset(order[:kept]))
            steps.append(Step(tuple(order[:kept]), score(model)))
            bar.advance(kept=kept, score=steps[-1].score)
            if steps[-1].score >= least - 1e-9:
                break
    return model, steps


def log_probabilities(outputs: NDArray[Any], output: Output) -> NDArray[np.float64]:
    """Outputs `[N, classes]` as logarithms of probabilities."""
    rows = outputs.astype(np.float64)
    if output == "probabilities":
        return np.log(np.maximum(rows, np.finfo(np.float32).tiny))
    shifted = rows - rows.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _cost(
    layer: str,
    operator: str,
    place: int,
    reference: NDArray[np.float64],
    found: NDArray[np.float64],
    labels: NDArray[np.int64] | None,
) -> LayerCost:
    divergence = float((np.exp(reference) * (reference - found)).sum(axis=1).mean())
    was, said = reference.argmax(axis=1), found.argmax(axis=1)
    points = None if labels is None else 100 * float((said == labels).mean() - (was == labels).mean())
    return LayerCost(layer, operator, place, max(divergence, 0.0), float((was == said).mean()), points)
