"""Build a plan through TensorRT's Python API, 10.3 and later."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdeploy import artifacts, events
from kdeploy.engines.base import Precision
from kdeploy.engines.tensorrt import timing_cache, versions
from kdeploy.engines.tensorrt.graph import Graph
from kdeploy.engines.tensorrt.listeners import make_logger, make_monitor
from kdeploy.engines.tensorrt.options import Options, Profile
from kdeploy.errors import Unavailable, UserError

_LEVELS = {"ampere+": "AMPERE_PLUS", "same-compute-capability": "SAME_COMPUTE_CAPABILITY"}


def build(
    model: Path, plan: Path, graph: Graph, precision: Precision, options: Options, profiles: Sequence[Profile], gpu: str
) -> list[str]:
    """Compile the ONNX file `model` into `plan`, strongly typed; returns what TensorRT said while it did.

    gpu: under which name the timing cache is kept. Raises UserError where TensorRT does not take the graph or an
    option, with its own first error.
    """
    import tensorrt as trt

    version = versions.parse(trt.__version__)
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    typed = versions.is_strongly_typed(version, dla=options.dla_core is not None)
    network = builder.create_network(_network_flags(trt, version, typed=typed))
    _parse(trt, network, logger, model)
    config = builder.create_builder_config()
    _configure(trt, config, options, version)
    if options.dla_core is not None:
        _use_dla(trt, builder, config, options, precision, typed=typed)
    if None in graph.input.sizes:
        for profile in profiles:
            _add_profile(builder, config, graph, profile, model)
    cache = timing_cache.file(versions.show(version), gpu) if options.timing_cache else None
    _load_timings(config, cache)
    monitor = make_monitor(trt, f"TensorRT builds {plan.name}")
    config.progress_monitor = monitor
    try:
        serialized = builder.build_serialized_network(network, config)
    finally:
        monitor.close()
    if monitor.interrupted is not None:
        raise monitor.interrupted
    if serialized is None:
        raise UserError(f"TensorRT {trt.__version__} can't build {model}: {_first(logger.errors)}.")
    artifacts.write_bytes(plan, serialized)
    if cache is not None:
        artifacts.write_bytes(cache, config.get_timing_cache().serialize())
    lines: list[str] = logger.lines
    return lines


def _network_flags(trt: Any, version: versions.Version, *, typed: bool) -> int:
    """From 11 on every network is strongly typed, and asking for it is deprecated."""
    if not typed or version >= (11,):
        return 0
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _parse(trt: Any, network: Any, logger: Any, model: Path) -> None:
    parser = trt.OnnxParser(network, logger)
    if parser.parse_from_file(str(model)):
        return
    if not parser.num_errors:
        raise UserError(f"TensorRT {trt.__version__} can't read {model}: {_first(logger.errors)}.")
    error = parser.get_error(0)
    where = f" (at {error.node_operator()} {error.node_name()!r})" if error.node_name() else ""
    raise UserError(f"TensorRT {trt.__version__} can't read {model}: {_first([error.desc()])}{where}.")


def _configure(trt: Any, config: Any, options: Options, version: versions.Version) -> None:
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # without it the precision can't be read back
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.builder_optimization_level is not None:
        config.builder_optimization_level = options.builder_optimization_level
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 means float32, not TensorFloat-32 with its ten bits
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.exclude_lean_runtime:
        config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)
    if options.refit:
        config.set_flag(trt.BuilderFlag.REFIT)
    if options.strip_weights:
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
        if not options.refit:  # any weights, or these weights only, which costs no speed
            config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)
    if options.hardware_compatibility != "none":
        levels = trt.HardwareCompatibilityLevel.__members__
        wanted = _LEVELS[options.hardware_compatibility]
        if wanted not in levels:
            raise UserError(
                f"TensorRT {versions.show(version)} has no hardware_compatibility: {options.hardware_compatibility}; "
                f"it has {', '.join(name for name, level in _LEVELS.items() if level in levels)}."
            )
        config.hardware_compatibility_level = levels[wanted]


def _use_dla(trt: Any, builder: Any, config: Any, options: Options, precision: Precision, *, typed: bool) -> None:
    if options.dla_core is None or not options.dla_core < builder.num_DLA_cores:
        raise Unavailable(f"There is no DLA core {options.dla_core} here; TensorRT finds {builder.num_DLA_cores}.")
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = options.dla_core
    if options.gpu_fallback:
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    if not typed:  # TensorRT 10: what a DLA may compute in is a flag there; the graph's types stay as they are
        config.set_flag(trt.BuilderFlag.FP16)
        if precision == "int8":
            config.set_flag(trt.BuilderFlag.INT8)


def _add_profile(builder: Any, config: Any, graph: Graph, wanted: Profile, model: Path) -> None:
    profile = builder.create_optimization_profile()
    sizes = graph.input.sizes[1:]
    shapes = [(batch, *sizes) for batch in (wanted.min, wanted.opt, wanted.max)]
    profile.set_shape(graph.input.name, *shapes)
    if config.add_optimization_profile(profile) < 0:
        raise UserError(f"TensorRT does not take the profile {wanted.min}, {wanted.opt}, {wanted.max} for {model}.")


def _load_timings(config: Any, cache: Path | None) -> None:
    """Give the builder what earlier builds have timed; a file that it does not take is left out, and said."""
    kept = cache.read_bytes() if cache is not None and cache.is_file() else b""
    if cache is None:
        return
    timings = config.create_timing_cache(kept)
    if timings is None or not config.set_timing_cache(timings, False):
        events.warn(f"TensorRT does not take the timings in {cache}; it starts with none.")
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _first(errors: Sequence[str]) -> str:
    """The first error in one line, without its full stop."""
    return " ".join(errors[0].split()).rstrip(".") if errors else "it gave no reason"
