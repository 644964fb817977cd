"""OpenVINO's own profile: a running mean of each layer's time, from which the time of a stretch of calls is taken back.

The CPU plugin adds up whole microseconds, cut off, and tells their sum over the count of calls, cut off once more. The
sum begins as the graph is compiled, so the first, slowest calls are in it. Each time here is therefore a difference:
the sum after a stretch of calls less the one before. The graph is compiled anew for each stretch, because the mean
grows coarser the longer it runs: after n calls, what was cut off stands for up to n microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdeploy.engines._onnx_file import Node
from kdeploy.engines.base import LayerTimes

WARM_UP = 10
"""Calls of a freshly compiled graph before those that count."""
STRETCH = 10
"""Calls of which each time is the mean."""

Means = Sequence[tuple[str, int]]
"""Each layer by OpenVINO's name, with its running mean in whole microseconds; 0 for what is part of another one."""


@dataclass(frozen=True)
class Compiled:
    """A layer of the compiled graph. originals: what it was made from, the graph's nodes and OpenVINO's inventions."""

    name: str
    operator: str
    precision: str
    originals: tuple[str, ...]


def between(before: Means, after: Means) -> list[float]:
    """Each layer's mean time in the `STRETCH` calls after the first `WARM_UP`, in microseconds; 0 for one that rested.

    At best knowledge: what was cut off was half a step on average, of each call's time and of each mean.
    """
    return [
        (_sum(late, WARM_UP + STRETCH) - _sum(early, WARM_UP)) / STRETCH + 0.5 if late or early else 0.0
        for (_, early), (_, late) in zip(before, after, strict=True)
    ]


def _sum(mean_us: int, count: int) -> float:
    """What was added up to a running mean that was cut off."""
    return mean_us * count + (count - 1) / 2


def layer_times(
    names: Sequence[str], stretches: Sequence[Sequence[float]], compiled: Sequence[Compiled], nodes: Sequence[Node]
) -> tuple[LayerTimes, ...]:
    """The layers that ran, a time a stretch.

    names, compiled: of the last stretch's graph. Layers are matched by their place, since OpenVINO numbers the nodes
    that it invents anew each time it compiles. nodes: of the ONNX file.
    """
    layers = {layer.name: layer for layer in compiled}
    known = _Known(nodes)
    found = []
    for name, times in zip(names, zip(*stretches, strict=True), strict=True):
        if any(times):
            layer = layers[name]
            own, *fused = known.in_layer(layer) or [name]
            found.append(LayerTimes(own, layer.operator, layer.precision, "CPU", times, tuple(fused)))
    return tuple(found)


class _Known:
    """The names in the ONNX file."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._names = {node.name for node in nodes}
        self._producers = {output: node.name for node in nodes for output in node.outputs}

    def in_layer(self, layer: Compiled) -> list[str]:
        """The graph's nodes that a layer computes, that which gave it its name first.

        OpenVINO appends to the name of a node that it takes apart (`conv/WithoutBiases`), and calls the last node
        after the network's output.
        """
        given = dict.fromkeys(self._producers.get(name, name) for name in layer.originals)
        found = [name for name in given if name in self._names]
        return sorted(found, key=lambda name: not f"{layer.name}/".startswith(f"{name}/"))
