"""By layer: where an engine's time goes, as its runtime's own profiler tells it: the schema, and its sums."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from kdeploy.bench.record import Record
from kdeploy.bench.results import LayerTime, Measurement


class Timing(Record):
    """A median over calls with its 99 % distribution-free interval; without one where the times are too few."""

    median_us: float
    low_us: float | None
    high_us: float | None


class Layer(Timing):
    """One layer of the engine as it was compiled."""

    name: str
    """The graph's node; the runtime's own name for what it added."""
    operator: str
    """In the runtime's words: Conv, QLinearConv, Convolution, ..."""
    module: str
    """The path of the torch module, where the export kept it; "" elsewhere."""
    fused: tuple[str, ...]
    """Further nodes of the graph that it computes, where the runtime tells them."""
    precision: str | None
    """Of its first input (ONNX Runtime), or of what it multiplies (OpenVINO, TensorRT); None: not told."""
    provider: str
    count: int
    """Calls behind the median."""
    share: float
    """Of the sum of all layers."""


class OperatorTime(Record):
    """The layers of one operator together."""

    operator: str
    layers: int
    total_us: float
    """The sum of their medians."""
    share: float


class LayerProfile(Record):
    """Where the time of one engine goes, layer by layer, on one machine."""

    schema_version: Literal[1] = 1
    name: str
    """The row: student-onnxruntime-int8, ..."""
    engine: str
    precision: str
    variant: str = ""
    profiler: str
    """Which, with its version."""
    batch: int
    threads: int
    calls: int
    grouped: int
    """A layer's median is over means of so many calls each; 1: over calls, `calls`: the profiler's own median."""
    layers: tuple[Layer, ...]
    """In the order in which they are computed."""
    sum_us: float
    """The medians of all layers together."""
    unaccounted_us: float | None
    """What of the call, profiler on, is in no layer: the runtime, copies, and the profiler itself. Below 0 where layers
    ran side by side, or the median call was calmer than the layers' times. None: the whole call is not told."""
    profiled: Timing | None
    """The whole call while the profiler was on; None: not told."""
    plain: Timing
    """The whole call without it, in the same process."""
    notes: tuple[str, ...]
    machine: dict[str, Any]
    measured_at: str

    @property
    def slowdown(self) -> float | None:
        """How many times as long a call takes with the profiler. None: the whole call is not told."""
        return None if self.profiled is None else self.profiled.median_us / self.plain.median_us


def by_operator(layers: Sequence[Layer]) -> tuple[OperatorTime, ...]:
    """The layers by operator, the longest first."""
    together: dict[str, list[Layer]] = {}
    for layer in layers:
        together.setdefault(layer.operator, []).append(layer)
    found = [
        OperatorTime(
            operator=operator,
            layers=len(them),
            total_us=sum(layer.median_us for layer in them),
            share=sum(layer.share for layer in them),
        )
        for operator, them in together.items()
    ]
    return tuple(sorted(found, key=lambda one: -one.total_us))


def longest_first(layers: Sequence[Layer], most: int) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """The `most` longest layers, and the others; both longest first."""
    ordered = tuple(sorted(layers, key=lambda layer: -layer.median_us))
    return ordered[:most], ordered[most:]


def with_layers(measured: Measurement, profiles: Iterable[LayerProfile]) -> Measurement:
    """The measurement with what a report shows of its engine's profile, where there is one."""
    profile = next((one for one in profiles if one.name == measured.name), None)
    if profile is None:
        return measured
    layers = tuple(
        LayerTime(name=layer.name, operator=layer.operator, median_us=layer.median_us, share=layer.share)
        for layer in profile.layers
    )
    return measured.model_copy(update={"layers": layers})
