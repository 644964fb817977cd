"""Where the time of a plan goes, by TensorRT's own profiler: through the Python API, or as `trtexec` writes it down."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from kdeploy.engines._profiling import WARM_UP, timed_after_warm_up
from kdeploy.engines.base import LayerTimes, Manifest, Profile
from kdeploy.engines.tensorrt import latency, layers, trtexec, versions
from kdeploy.engines.tensorrt.listeners import make_profiler
from kdeploy.engines.tensorrt.options import Options
from kdeploy.engines.tensorrt.session import TensorRTSession
from kdeploy.errors import UserError

_WITHOUT_GRAPH = (
    "The engine runs as a CUDA graph, in which TensorRT sees no layers: while they are timed, each is launched by "
    "itself."
)
_BY_TRTEXEC = "trtexec tells one median a layer, on random inputs, and not how long a call took meanwhile."
_UNJOINED = " + "
"""Between the names of layers that TensorRT fused."""

Timed = tuple[str, tuple[float, ...]]
"""A layer by TensorRT's name, and its times in microseconds."""


def with_python(
    plan: Path,
    options: Options,
    weights: Path | None,
    inputs: Sequence[NDArray[Any]],
    calls: int,
    plain_us: tuple[float, ...],
) -> Profile:
    """Run the plan with a profiler. plain_us: what it took without one. weights: see `TensorRTSession`."""
    import tensorrt as trt

    profiler = make_profiler(trt)
    single = options.model_copy(update={"cuda_graph": False})
    with closing(TensorRTSession(plan, single, weights)) as session:
        listed = layers.parse(session.layers())
        session.watch(profiler)
        profiled = timed_after_warm_up(session.run, inputs, calls)
    return Profile(
        profiler=f"TensorRT {trt.__version__}",
        calls=calls,
        layers=_joined(_by_layer(profiler.told, calls, plan), listed),
        profiled_us=profiled,
        plain_us=plain_us,
        notes=(_WITHOUT_GRAPH,) if options.cuda_graph else (),
    )


def with_trtexec(
    tool: trtexec.Trtexec,
    folder: Path,
    manifest: Manifest,
    options: Options,
    inputs: Sequence[NDArray[Any]],
    calls: int,
) -> Profile:
    """Run the plan through `trtexec`: for its latencies, and then for its layers. Raises UserError where it fails."""
    plan = folder / manifest.model
    settings = latency.Settings(cuda_graph=options.cuda_graph)
    with tempfile.TemporaryDirectory(prefix="kdeploy-") as scratch:
        times, profile, described = (Path(scratch) / name for name in ("times.json", "profile.json", "layers.json"))
        arguments = [f"--loadEngine={plan}", f"--exportTimes={times}", f"--exportProfile={profile}"]
        arguments += [f"--exportLayerInfo={described}", "--profilingVerbosity=detailed", "--separateProfileRun"]
        arguments += [f"--iterations={calls}", "--duration=0", *latency.flags(settings, tool.version)]
        arguments += trtexec.opening(folder / "model.onnx", options)
        if manifest.details.get("profiles") is not None:  # of a plan with an open batch
            arguments.append(f"--shapes={trtexec.shape_of(manifest.input_name, inputs[0].shape)}")
        trtexec.run(tool, trtexec.checked(arguments, tool.version), what=f"profile {plan}")
        count, medians = _medians(profile, plan)
        listed = layers.parse(described.read_text(encoding="utf-8"))
        plain = [1000 * float(sample["latencyMs"]) for sample in json.loads(times.read_text(encoding="utf-8"))]
    return Profile(
        profiler=f"trtexec {versions.show(tool.version)}",
        calls=count,
        layers=_joined(medians, listed),
        profiled_us=(),
        plain_us=tuple(plain),
        grouped=count,
        notes=(_BY_TRTEXEC, *((_WITHOUT_GRAPH,) if options.cuda_graph else ())),
    )


def _by_layer(told: Sequence[tuple[str, float]], calls: int, plan: Path) -> list[Timed]:
    """What the profiler was told, a layer at a time: each run tells all layers in the same order."""
    count, rest = divmod(len(told), WARM_UP + calls)
    if rest or not count:
        raise UserError(
            f"{plan} can't be profiled: in {WARM_UP + calls} runs TensorRT told the times of {len(told)} layers, not "
            "of as many in each."
        )
    return [(told[place][0], tuple(taken for _, taken in told[place::count][WARM_UP:])) for place in range(count)]


def _medians(profile: Path, plan: Path) -> tuple[int, list[Timed]]:
    """How often the layers were timed, and the median of each in microseconds."""
    try:
        counted, *described = json.loads(profile.read_text(encoding="utf-8"), strict=False)
        return int(counted["count"]), [(layer["name"], (1000 * float(layer["medianMs"]),)) for layer in described]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{plan} can't be profiled: trtexec wrote a profile that can't be read.") from None


def _joined(times: Sequence[Timed], listed: Sequence[layers.Layer]) -> tuple[LayerTimes, ...]:
    """The times with what the engine inspector says of each layer."""
    known = {layer.name: layer for layer in listed}
    return tuple(_layer(name, taken, known.get(name)) for name, taken in times)


def _layer(name: str, taken: tuple[float, ...], layer: layers.Layer | None) -> LayerTimes:
    nodes = tuple(dict.fromkeys(layer.nodes)) if layer is not None else ()
    first, *fused = nodes or name.split(_UNJOINED)
    operator = "not stated" if layer is None else layer.operator if layer.precision is not None else layer.kind
    return LayerTimes(first, operator, None if layer is None else layer.precision, "TensorRT", taken, tuple(fused))
