"""ONNX Runtime's profile, which is a JSON trace of what it ran, and how its names lead back to the graph's nodes."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdeploy.engines._onnx_file import Node, read
from kdeploy.engines.base import LayerTimes

RESOLUTION_US = 1.0
"""Its times are whole microseconds, cut off."""
_PRECISIONS = {"float": "float32", "double": "float64"}
"""Names of types in the trace where they are not NumPy's."""
_KERNEL, _CALL = "_kernel_time", "model_run"
_HOLDS_OTHERS = frozenset({"If", "Loop", "Scan"})
"""Their time is that of the nodes inside, which are in the trace as well."""
_UNIQUE = re.compile(r"_token_\d+$")
_BLOCKED = "_nchwc"
_FUSED_AT_MOST = 4
"""Operators behind a convolution that become part of it: normalisation, sum, activation."""


@dataclass(frozen=True)
class Kernel:
    """One node, run once.

    precision: of its first input, "none" where it has none. start_us: since the session began.
    """

    index: int
    name: str
    operator: str
    precision: str
    provider: str
    start_us: int
    duration_us: int


def load(path: Path) -> list[dict[str, Any]]:
    """The events of a trace that ONNX Runtime wrote."""
    events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return events


def kernels(events: Sequence[Mapping[str, Any]]) -> Iterator[Kernel]:
    """The nodes that ran, in the order of the trace."""
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith(_KERNEL):
            continue
        arguments = event["args"]
        inputs = arguments["input_type_shape"]
        kind = next(iter(inputs[0]), "none") if inputs else "none"
        yield Kernel(
            index=int(arguments["node_index"]),
            name=event["name"].removesuffix(_KERNEL),
            operator=arguments["op_name"],
            precision=_PRECISIONS.get(kind, kind),
            provider=arguments["provider"],
            start_us=event["ts"],
            duration_us=event["dur"],
        )


def layer_times(events: Sequence[Mapping[str, Any]], skip: int, nodes: Names) -> tuple[LayerTimes, ...]:
    """Each node's time in each call after the first `skip`, in microseconds; 0 in a call that went without it."""
    begins = sorted(event["ts"] for event in events if event.get("name") == _CALL)
    times: dict[tuple[int, str], list[float]] = {}
    first: dict[tuple[int, str], Kernel] = {}
    for kernel in sorted(kernels(events), key=lambda kernel: kernel.start_us):
        call = bisect_right(begins, kernel.start_us) - 1 - skip
        if call < 0 or kernel.operator in _HOLDS_OTHERS:
            continue
        key = (kernel.index, kernel.name)
        first.setdefault(key, kernel)
        times.setdefault(key, [0.0] * (len(begins) - skip))[call] += kernel.duration_us
    return tuple(
        LayerTimes(
            name=nodes.of(kernel.name, kernel.operator),
            operator=kernel.operator,
            precision=None if kernel.precision == "none" else kernel.precision,
            provider=kernel.provider,
            times_us=tuple(times[key]),
        )
        for key, kernel in first.items()
    )


class Names:
    """From the runtime's names of optimised nodes to the graph's.

    It makes a name unique by `_token_3`, appends `/MatMulAddFusion` and the like to the name of a node that it fuses,
    and calls a node that it lays out in blocks after the tensor that it gives: `relu_1_nchwc`.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._names = {node.name for node in nodes if node.name}
        self._producers = {output: node for node in nodes for output in node.outputs}

    def of(self, name: str, operator: str) -> str:
        """The graph's node behind a name of the runtime; the name itself where it is the runtime's own invention."""
        bare = _UNIQUE.sub("", name)
        for candidate in (name, bare, *_beginnings(bare)):
            if candidate in self._names:
                return candidate
        behind = self._behind(bare.removesuffix(_BLOCKED), operator) if bare.endswith(_BLOCKED) else None
        return behind or name

    def _behind(self, tensor: str, operator: str) -> str | None:
        """The node of this operator that gives the tensor, by itself or through what was fused with it."""
        for _ in range(_FUSED_AT_MOST):
            node = self._producers.get(tensor)
            if node is None:
                return None
            if node.operator == operator:
                return node.name or None
            tensor = node.input(0)
        return None


def names_in(path: Path) -> Names:
    """The names of an ONNX file's nodes; none of a file in ONNX Runtime's own format, whose names stay as they are."""
    return Names(() if path.suffix == ".ort" else read(path).nodes)


def _beginnings(name: str) -> Iterator[str]:
    """Of a/b/c: a/b, then a."""
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name
