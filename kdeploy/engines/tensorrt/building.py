"""From an ONNX file to a proved plan: refuse, build, read back, compare, write down."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdeploy import artifacts, events
from kdeploy.engines._checks import CHECK_BATCH, compare, match, seeded_images
from kdeploy.engines._folder import complete, copy_in
from kdeploy.engines.base import Manifest, Precision
from kdeploy.engines.onnxruntime import OnnxRuntime
from kdeploy.engines.tensorrt import dla, graph, layers, machine, python_builder, timing_cache, trtexec, versions
from kdeploy.engines.tensorrt.options import Options, Profile, profiles_for
from kdeploy.engines.tensorrt.session import TensorRTSession
from kdeploy.errors import Unavailable, UserError

PLAN, LAYERS, WEIGHTS = "model.plan", "layers.json", "model.onnx"


@dataclass(frozen=True)
class Job:
    """One build. images: what the plan and the reference are both asked, after it."""

    model: Path
    folder: Path
    graph: graph.Graph
    manifest: Manifest
    options: Options
    profiles: tuple[Profile, ...]
    images: NDArray[Any]

    @property
    def plan(self) -> Path:
        return self.folder / PLAN


@dataclass(frozen=True)
class Built:
    """What a builder leaves besides the plan.

    log: what TensorRT said. layers: the inspector's JSON. answers: what the plan gives for the job's images.
    """

    version: str
    machine: dict[str, str | None]
    log: list[str]
    layers: str
    answers: NDArray[np.float32]
    device_memory_bytes: int | None


def build(
    model: Path,
    folder: Path,
    manifest: Manifest,
    options: Options,
    tool: trtexec.Trtexec | None,
    version: versions.Version,
) -> Manifest:
    """Build `model` into `folder` with the Python API, or with `tool`; see `TensorRT.build`."""
    job = _job(model, folder, manifest, options)
    wanted = graph.precisions(job.graph)
    _refuse(job, wanted, version)
    with closing(OnnxRuntime().open_reference(model)) as reference:
        match(reference.input_name, str(reference.input_dtype), manifest, model)
        expected = reference.run(job.images)
    _empty(folder)
    if options.strip_weights:
        copy_in(model, folder, WEIGHTS)
    built = _with_python(job) if tool is None else _with_trtexec(job, tool)
    artifacts.write_text(folder / LAYERS, built.layers)
    placed = dla.coverage(built.log) if options.dla_core is not None else None
    listed = _proved(job, built, wanted, placed)
    details = {
        "tensorrt": built.version,
        "builder": "python" if tool is None else "trtexec",
        "machine": built.machine,
        "profiles": [profile.model_dump() for profile in job.profiles] if None in job.graph.input.sizes else None,
        "layers": len(listed),
        "operators": layers.operators(listed),
        "dla": placed,
        "device_memory_bytes": built.device_memory_bytes,
        "check": compare("TensorRT", expected, built.answers, manifest, model),
    }
    files = [PLAN, WEIGHTS] if options.strip_weights else [PLAN]
    return complete(folder, manifest, engine="tensorrt", files=files, details=details)


def _job(model: Path, folder: Path, manifest: Manifest, options: Options) -> Job:
    parsed = graph.read(model)
    profiles = profiles_for(options, manifest.preprocessing.height, manifest.preprocessing.width)
    fixed = parsed.input.sizes[0] if parsed.input.sizes else None
    batch = fixed if fixed is not None else min(max(profiles[0].min, CHECK_BATCH), profiles[0].max)
    return Job(model, folder, parsed, manifest, options, profiles, seeded_images(manifest, batch))


def _refuse(job: Job, wanted: Counter[Precision | None], version: versions.Version) -> None:
    """What would fail after minutes of building, or worse, not fail."""
    model, taken, precision = job.model, job.graph.input, job.manifest.precision
    name = versions.show(version)
    if job.graph.opset > (highest := versions.highest_opset(version)):
        raise UserError(
            f"{model} is of opset {job.graph.opset}, and TensorRT {name} reads up to {highest}. Export it with that "
            "opset."
        )
    if None in taken.sizes[1:]:
        shown = ", ".join("?" if size is None else str(size) for size in taken.sizes)
        raise UserError(
            f"{model} leaves sizes of its input {taken.name!r} open: [{shown}]. Only the batch may be; "
            "export it with a fixed height and width."
        )
    graph.refuse_uint8_before_cast(job.graph, model)
    if not wanted[precision]:
        held = ", ".join(f"{count} in {kind}" for kind, count in wanted.items() if kind is not None) or "none"
        raise UserError(
            f"{model}: {precision} is asked for, but of the graph's convolutions and matrix multiplications none is "
            f"{precision} ({held}). In TensorRT the graph's own types are the precision: convert the graph first."
        )
    if job.options.dla_core is not None:
        if not versions.has_dla(version):
            raise Unavailable(f"TensorRT {name} builds for no DLA; versions up to 10.7 do, and 11.4.1 and later.")
        if precision not in ("float16", "int8"):
            raise UserError(f"A DLA computes in float16 and int8, not in {precision}; leave out dla_core.")


def _empty(folder: Path) -> None:
    """Nothing of an earlier build stays, whole or half."""
    folder.mkdir(parents=True, exist_ok=True)
    artifacts.remove_temporaries(folder)
    for name in (PLAN, LAYERS, WEIGHTS):
        (folder / name).unlink(missing_ok=True)


def _with_python(job: Job) -> Built:
    import tensorrt

    facts = machine.facts(tensorrt.__version__)
    gpu = f"{facts['gpu']}-sm{facts['compute_capability']}"
    log = python_builder.build(job.model, job.plan, job.graph, job.manifest.precision, job.options, job.profiles, gpu)
    weights = job.folder / WEIGHTS if job.options.strip_weights else None
    with closing(TensorRTSession(job.plan, job.options, weights)) as session:
        listed = session.layers()
        answers = session.run(job.images)
        memory = session.engine.device_memory_size_v2
    return Built(tensorrt.__version__, facts, log, listed, answers, memory)


def _with_trtexec(job: Job, tool: trtexec.Trtexec) -> Built:
    version = versions.show(tool.version)
    timings = timing_cache.file(version, "trtexec") if job.options.timing_cache else None
    with events.task(f"trtexec {version} builds {PLAN}"), artifacts.atomic_path(job.plan) as plan:
        arguments = trtexec.build_arguments(
            job.model, plan, job.graph, job.manifest.precision, job.options, job.profiles, tool.version, timings
        )
        log = trtexec.run(tool, arguments, what=f"build {job.model}")
    facts = trtexec.device(log, version)
    with tempfile.TemporaryDirectory() as scratch:
        answers, listed = trtexec.read_back(
            tool, job.model, job.plan, job.graph, job.images, Path(scratch), job.options
        )
    return Built(version, facts, log.splitlines(), listed, answers, None)


def _proved(
    job: Job, built: Built, wanted: Counter[Precision | None], placed: dict[str, Any] | None
) -> tuple[layers.Layer, ...]:
    """The engine's layers, if they are in the precision asked for; a plan that fails is removed."""
    try:
        listed = layers.parse(built.layers)
        if placed is not None:
            _report(job, placed)
            if placed["dla_parts"] and not layers.counts(listed):
                return listed  # what a DLA runs is in none of the inspector's layers
        share = job.options.precision_share
        layers.require_precision(listed, job.manifest.precision, wanted, share=share, path=job.plan)
    except Exception:
        job.plan.unlink(missing_ok=True)
        raise
    return listed


def _report(job: Job, placed: dict[str, Any]) -> None:
    """Say what the DLA got of the network."""
    parts, others = len(placed["dla_parts"]), len(placed["gpu_layers"])
    if parts:
        events.say(f"{job.plan}: {parts} parts run on the DLA, {others} layers on the GPU")
    else:
        events.warn(f"{job.plan}: a DLA was asked for, and TensorRT put no layer on it.")
