"""From an ONNX file to a proved plan: refuse, build, read back, compare, write down."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdeploy import artifacts, events
from kdeploy.engines._checks import compare, match, seeded_images
from kdeploy.engines._folder import complete, copy_in
from kdeploy.engines.base import Manifest, Precision
from kdeploy.engines.onnxruntime import OnnxRuntime
from kdeploy.engines.tensorrt import dla, graph, layers, machine, python_builder, timing_cache, trtexec, versions
from kdeploy.engines.tensorrt.options import Options, Profile, profiles_for
from kdeploy.engines.tensorrt.session import TensorRTSession
from kdeploy.errors import Unavailable, UserError

PLAN, LAYERS, WEIGHTS = "model.plan", "layers.json", "model.onnx"
_CHECK_BATCH = 4


@dataclass(frozen=True)
class Built:
    """What a builder leaves besides the plan.

    log: what TensorRT said. layers: the inspector's JSON. answers: what the plan gives for the check's images.
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
    parsed = graph.read(model)
    wanted = graph.precisions(parsed)
    _refuse(model, parsed, wanted, manifest.precision, options, version)
    artifacts.remove_temporaries(folder) if folder.is_dir() else folder.mkdir(parents=True)
    (folder / PLAN).unlink(missing_ok=True)
    if options.strip_weights:
        copy_in(model, folder, WEIGHTS)
    profiles = profiles_for(options, manifest.preprocessing.height, manifest.preprocessing.width)
    images = seeded_images(manifest, _batch(parsed, profiles))
    with closing(OnnxRuntime().open_reference(model)) as reference:
        match(reference.input_name, str(reference.input_dtype), manifest, model)
        expected = reference.run(images)
    make = _with_python if tool is None else _with_trtexec(tool)
    built = make(model, folder, parsed, manifest, options, profiles, images)
    artifacts.write_text(folder / LAYERS, built.layers)
    placed = dla.coverage(built.log) if options.dla_core is not None else None
    listed = _proved(folder / PLAN, built, wanted, manifest.precision, options, placed)
    details = {
        "tensorrt": built.version,
        "builder": "python" if tool is None else "trtexec",
        "machine": built.machine,
        "profiles": [profile.model_dump() for profile in profiles] if None in parsed.input.sizes else None,
        "layers": len(listed),
        "operators": layers.operators(listed),
        "dla": placed,
        "device_memory_bytes": built.device_memory_bytes,
        "check": compare("TensorRT", expected, built.answers, manifest, model),
    }
    files = [PLAN, WEIGHTS] if options.strip_weights else [PLAN]
    return complete(folder, manifest, engine="tensorrt", files=files, details=details)


def _refuse(
    model: Path,
    parsed: graph.Graph,
    expected: Counter[Precision | None],
    precision: Precision,
    options: Options,
    version: versions.Version,
) -> None:
    """What would fail after minutes of building, or worse, not fail."""
    name = versions.show(version)
    if parsed.opset > (highest := versions.highest_opset(version)):
        raise UserError(
            f"{model} is of opset {parsed.opset}, and TensorRT {name} reads up to {highest}. Export it with that opset."
        )
    if None in parsed.input.sizes[1:]:
        shown = ", ".join("?" if size is None else str(size) for size in parsed.input.sizes)
        raise UserError(
            f"{model} leaves sizes of its input {parsed.input.name!r} open: [{shown}]. Only the batch may be; "
            "export it with a fixed height and width."
        )
    graph.refuse_uint8_before_cast(parsed, model)
    if not expected[precision]:
        held = ", ".join(f"{count} in {kind}" for kind, count in expected.items() if kind is not None) or "none"
        raise UserError(
            f"{model}: {precision} is asked for, but of the graph's convolutions and matrix multiplications none is "
            f"{precision} ({held}). In TensorRT the graph's own types are the precision: convert the graph first."
        )
    if options.dla_core is not None:
        if not versions.has_dla(version):
            raise Unavailable(f"TensorRT {name} builds for no DLA; versions up to 10.7 do, and 11.4.1 and later.")
        if precision not in ("float16", "int8"):
            raise UserError(f"A DLA computes in float16 and int8, not in {precision}; leave out dla_core.")


Make = Callable[..., Built]


def _with_python(
    model: Path,
    folder: Path,
    parsed: graph.Graph,
    manifest: Manifest,
    options: Options,
    profiles: tuple[Profile, ...],
    images: NDArray[Any],
) -> Built:
    import tensorrt

    facts = machine.facts(tensorrt.__version__)
    gpu = f"{facts['gpu']}-sm{facts['compute_capability']}"
    log = python_builder.build(model, folder / PLAN, parsed, manifest.precision, options, profiles, gpu)
    weights = folder / WEIGHTS if options.strip_weights else None
    with closing(TensorRTSession(folder / PLAN, options, weights)) as session:
        listed = session.layers()
        answers = session.run(images)
        memory = session.engine.device_memory_size_v2
    return Built(tensorrt.__version__, facts, log, listed, answers, memory)


def _with_trtexec(tool: trtexec.Trtexec) -> Make:
    def make(
        model: Path,
        folder: Path,
        parsed: graph.Graph,
        manifest: Manifest,
        options: Options,
        profiles: tuple[Profile, ...],
        images: NDArray[Any],
    ) -> Built:
        version = versions.show(tool.version)
        timings = timing_cache.file(version, "trtexec") if options.timing_cache else None
        with events.task(f"trtexec {version} builds {PLAN}"), artifacts.atomic_path(folder / PLAN) as plan:
            arguments = trtexec.build_arguments(
                model, plan, parsed, manifest.precision, options, profiles, tool.version, timings
            )
            log = trtexec.run(tool, arguments, what=f"build {model}")
        facts = trtexec.device(log, version)
        with tempfile.TemporaryDirectory() as scratch:
            answers, listed = trtexec.read_back(tool, model, folder / PLAN, parsed, images, Path(scratch), options)
        return Built(version, facts, log.splitlines(), listed, answers, None)

    return make


def _batch(parsed: graph.Graph, profiles: tuple[Profile, ...]) -> int:
    """How many images the check takes: the graph's own batch, or four, as far as the first profile allows."""
    fixed = parsed.input.sizes[0]
    return fixed if fixed is not None else min(max(profiles[0].min, _CHECK_BATCH), profiles[0].max)


def _proved(
    plan: Path,
    built: Built,
    wanted: Counter[Precision | None],
    precision: Precision,
    options: Options,
    placed: dict[str, Any] | None,
) -> tuple[layers.Layer, ...]:
    """The engine's layers, if they are in the precision asked for; a plan that fails is removed."""
    try:
        listed = layers.parse(built.layers)
        if placed and placed["dla_parts"]:
            events.say(
                f"DLA: {len(placed['dla_parts'])} parts on the DLA, {len(placed['gpu_layers'])} layers on the GPU"
            )
            if not layers.counts(listed):  # what a DLA runs is in none of the inspector's layers
                return listed
        elif placed is not None:
            events.warn(f"{plan}: a DLA was asked for, and TensorRT put no layer on it.")
        layers.require_precision(listed, precision, wanted, share=options.precision_share, path=plan)
    except Exception:
        plan.unlink(missing_ok=True)
        raise
    return listed
