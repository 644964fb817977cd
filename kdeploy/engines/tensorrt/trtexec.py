"""`trtexec`: the same options as command lines, for each version its own; run, and what it prints.

Where only `trtexec` is there (TensorRT 8 on JetPack 5, whose Python is too old for kdeploy), it builds, reads back and
runs. It is started anew for each of these.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdeploy.engines.base import Precision
from kdeploy.engines.tensorrt import machine, versions
from kdeploy.engines.tensorrt.graph import Graph
from kdeploy.engines.tensorrt.options import Options, Profile
from kdeploy.engines.tensorrt.versions import Version
from kdeploy.errors import GateFailed, Unavailable, UserError

_PLACES = (
    Path("/usr/src/tensorrt/bin/trtexec"),
    Path("/opt/tensorrt/bin/trtexec"),
    Path("/usr/local/tensorrt/bin/trtexec"),
)
_BANNER = re.compile(r"\[TensorRT v(\d+)\]")
_ERROR = re.compile(r"\[E\] (?:\[TRT\] )?(.+)")
_HELP_TIMEOUT_S = 30
_WEAK_FLAGS: Mapping[Precision, tuple[str, ...]] = {"float32": (), "float16": ("--fp16",), "int8": ("--int8",)}
"""Without strong typing, what a graph's types and Q/DQ may become is a flag."""
_LEVELS: Mapping[str, tuple[str, Version]] = {
    "ampere+": ("ampere+", (8, 6)),
    "same-compute-capability": ("sameComputeCapability", (10, 9)),
}
"""What `trtexec` calls each, and since when."""


@dataclass(frozen=True)
class Trtexec:
    """One `trtexec` on this machine."""

    path: Path
    version: Version


def find() -> Trtexec | None:
    """The `trtexec` on the PATH, else where JetPack and NVIDIA's packages put it; None where there is none."""
    on_path = shutil.which("trtexec")
    for path in [*([Path(on_path)] if on_path else []), *_PLACES]:
        if path.is_file() and (version := _version(path)):
            return Trtexec(path, version)
    return None


def require() -> Trtexec:
    """The `trtexec` of this machine. Raises Unavailable where there is none."""
    found = find()
    if found is None:
        raise Unavailable(
            f"There is no trtexec here, neither on the PATH nor at {_PLACES[0]}. On a Jetson, type: "
            "sudo apt install tensorrt"
        )
    return found


def parse_banner(text: str) -> Version | None:
    """The version in "[TensorRT v8502]" (8.5.2) or "[TensorRT v100300]" (10.3.0), which is how `trtexec` begins."""
    found = _BANNER.search(text)
    if found is None:
        return None
    number = int(found[1])
    if number < 10_000:  # until 9, the major version has thousands: 8502
        return number // 1000, number // 100 % 10, number % 100
    return number // 10_000, number // 100 % 100, number % 100


def build_arguments(
    model: Path,
    plan: Path,
    graph: Graph,
    precision: Precision,
    options: Options,
    profiles: Sequence[Profile],
    version: Version,
    timings: Path | None,
) -> list[str]:
    """The options that build `model` into `plan`, and stop there.

    Raises UserError where this version has no option for something that was asked for.
    """
    arguments = [f"--onnx={model}", f"--saveEngine={plan}", "--profilingVerbosity=detailed", "--noTF32"]
    arguments.append("--buildOnly" if version < (8, 6) else "--skipInference")
    arguments += _precision_flags(precision, options, version)
    if None in graph.input.sizes:
        arguments += _profile_flags(graph, profiles, version)
    if timings is not None:
        arguments.append(f"--timingCacheFile={timings}")
    arguments += _wanted(options, version)
    checked(opening(model, options), version)
    return checked(arguments, version)


def checked(arguments: list[str], version: Version) -> list[str]:
    """The arguments, if this version's `trtexec` knows them all; it refuses to start over one that it does not know."""
    known = versions.trtexec_options(version)
    for argument in arguments:
        if (name := argument.removeprefix("--").partition("=")[0]) not in known:
            raise UserError(f"trtexec {versions.show(version)} has no --{name}; leave out the option that asks for it.")
    return arguments


def run(trtexec: Trtexec, arguments: Sequence[str], *, what: str) -> str:
    """Run `trtexec` and return what it printed. Raises UserError with its first error where it fails."""
    done = subprocess.run(
        [str(trtexec.path), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    if done.returncode:
        found = _ERROR.search(done.stdout)
        lines = done.stdout.strip().splitlines()
        why = found[1] if found else lines[-1] if lines else f"it ended with status {done.returncode}"
        raise UserError(f"trtexec {versions.show(trtexec.version)} can't {what}: {why.strip().rstrip('.')}.")
    return done.stdout


def read_back(
    trtexec: Trtexec, model: Path, plan: Path, graph: Graph, images: NDArray[Any], folder: Path, options: Options
) -> tuple[NDArray[np.float32], str]:
    """What the plan answers to `images`, and the inspector's JSON, through files in `folder`: slow, and right.

    The engine is read back while it is open for a run: before that, open shapes hide the types of its layers.
    """
    source, answer, layers = folder / "input.bin", folder / "output.json", folder / "layers.json"
    source.write_bytes(np.ascontiguousarray(images).tobytes())
    name = _quoted(graph.input.name)
    arguments = [f"--loadEngine={plan}", f"--loadInputs={name}:{source}", f"--exportOutput={answer}"]
    arguments += [f"--exportLayerInfo={layers}", "--profilingVerbosity=detailed"]
    arguments += ["--iterations=1", "--duration=0", "--warmUp=0", *opening(model, options)]
    if None in graph.input.sizes:
        arguments.append(f"--shapes={shape_of(graph.input.name, images.shape)}")
    run(trtexec, checked(arguments, trtexec.version), what=f"run {plan}")
    try:
        first = json.loads(answer.read_text(encoding="utf-8"))[0]
    except json.JSONDecodeError:  # it writes NaN as no JSON does
        raise GateFailed(
            f"{plan}: the answers that trtexec {versions.show(trtexec.version)} wrote are not numbers."
        ) from None
    shape = [int(size) for size in str(first["dimensions"]).split("x")]
    return np.array(first["values"], dtype=np.float32).reshape(shape), layers.read_text(encoding="utf-8")


def device(log: str, version: str) -> dict[str, str | None]:
    """`machine.facts` from the "Device Information" that `trtexec` prints; None for what it does not say."""
    name = re.search(r"Selected Device: (.+)", log)
    capability = re.search(r"Compute Capability: (\d+\.\d+)", log)
    return {
        "tensorrt": version,
        "compute_capability": capability[1] if capability else None,
        "gpu": name[1].strip() if name else None,
        "driver": machine.driver(),
    }


def shape_of(name: str, sizes: Sequence[int | None]) -> str:
    """`images:1x3x32x32`, as `trtexec` writes shapes; a name with a colon goes into quotes."""
    return f"{_quoted(name)}:{'x'.join(str(size) for size in sizes)}"


def opening(model: Path, options: Options) -> list[str]:
    """What a plan needs to be opened as well as built; `model`: where the weights of a plan without them are."""
    flags = [] if options.dla_core is None else [f"--useDLACore={options.dla_core}"]
    return [*flags, f"--refitFromOnnx={model}"] if options.strip_weights else flags


def _precision_flags(precision: Precision, options: Options, version: Version) -> list[str]:
    if versions.is_strongly_typed(version, dla=options.dla_core is not None):
        return ["--stronglyTyped"] if version < (11,) else []
    if precision not in _WEAK_FLAGS:
        raise UserError(
            f"TensorRT {versions.show(version)} can't build {precision} here; export float32, float16 or int8."
        )
    flags = list(_WEAK_FLAGS[precision])
    if options.dla_core is not None and "--fp16" not in flags:
        flags.append("--fp16")  # a DLA has no float32
    return flags


def _profile_flags(graph: Graph, profiles: Sequence[Profile], version: Version) -> list[str]:
    if len(profiles) > 1 and version < (10,):
        raise UserError(f"trtexec {versions.show(version)} builds one profile; {len(profiles)} are asked for.")
    flags = []
    for index, profile in enumerate(profiles):
        if len(profiles) > 1:
            flags.append(f"--profile={index}")
        for place, batch in (("min", profile.min), ("opt", profile.opt), ("max", profile.max)):
            flags.append(f"--{place}Shapes={shape_of(graph.input.name, (batch, *graph.input.sizes[1:]))}")
    return flags


def _wanted(options: Options, version: Version) -> list[str]:
    flags = [] if options.dla_core is None else [f"--useDLACore={options.dla_core}"]
    if options.dla_core is not None and options.gpu_fallback:
        flags.append("--allowGPUFallback")
    if options.workspace_mib is not None:
        flags.append(f"--memPoolSize=workspace:{options.workspace_mib}")
    if options.builder_optimization_level is not None:
        flags.append(f"--builderOptimizationLevel={options.builder_optimization_level}")
    switches = {
        "--versionCompatible": options.version_compatible,
        "--excludeLeanRuntime": options.exclude_lean_runtime,
        "--refit": options.refit,
        "--stripWeights": options.strip_weights,
    }
    flags += [name for name, on in switches.items() if on]
    if options.hardware_compatibility != "none":
        value, since = _LEVELS[options.hardware_compatibility]
        if version < since:
            raise UserError(
                f"trtexec {versions.show(version)} has no hardware_compatibility: {options.hardware_compatibility}."
            )
        flags.append(f"--hardwareCompatibilityLevel={value}")
    return flags


def _quoted(name: str) -> str:
    return f"'{name}'" if ":" in name else name


def _version(path: Path) -> Version | None:
    try:
        done = subprocess.run([str(path), "--help"], capture_output=True, text=True, timeout=_HELP_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_banner(done.stdout + done.stderr)
