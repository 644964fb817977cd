"""A machine with TensorRT that is none: the generated double, a CUDA in ordinary memory, and an engine that computes.

The engine of `graphs.save` is imitated by ONNX Runtime, so what a session gives back can be compared with the graph.
"""

from __future__ import annotations

import ctypes
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from kdeploy.engines.base import Manifest, Preprocessing
from kdeploy.engines.onnxruntime import OnnxRuntime, OnnxSession
from kdeploy.engines.tensorrt import TensorRT, graph
from tests.engines.tensorrt import graphs
from tests.engines.tensorrt.double import Double
from tests.engines.tensorrt.fake_cuda import FakeCuda

WORDS = {"float32": "Float", "float16": "Half", "bfloat16": "BFloat16", "int8": "Int8"}
PHRASES = {
    "float32": "Row major linear FP32",
    "float16": "Channel major FP16 format where channel % 8 == 0",
    "bfloat16": "Row major linear BF16",
    "int8": "Thirty-two wide channel vectorized row major Int8 format",
}


@dataclass
class World:
    """What the imitated TensorRT does, to be changed by a test.

    precisions: of the engine's layers that multiply, None: as the graph says. profiles: batches (min, opt, max) of
    the opened engine.
    """

    double: Double
    cuda: FakeCuda
    precisions: tuple[str, ...] | None = None
    profiles: tuple[tuple[int, int, int], ...] = ((1, 1, 8),)
    log: tuple[str, ...] = ()
    error: str | None = None
    """What building and opening fail with."""
    parses: bool = True
    model: Path | None = None
    """The ONNX file that the engine computes; the parser tells it."""
    factor: float = 1.0
    """By how much the engine's answers are wrong."""
    times_ms: dict[str, float] = field(default_factory=lambda: {"cast": 0.001, "stem": 0.25, "head": 0.05})
    """What each run tells a profiler."""
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def session(self) -> OnnxSession:
        """What computes the engine's answers."""
        if self.state.get("computes") != self.model:
            assert self.model is not None
            self.state |= {"computes": self.model, "session": OnnxRuntime().open_file(self.model, threads=1)}
        session: OnnxSession = self.state["session"]
        return session

    def layers(self) -> str:
        """The inspector's JSON for an engine with these precisions."""
        assert self.model is not None
        precisions = self.precisions or tuple(graph.precisions(graph.read(self.model)).elements())
        names = ("stem", "head", *(f"more{index}" for index in range(len(precisions))))
        multiplying = [layer(name, precision or "") for name, precision in zip(names, precisions, strict=False)]
        return json.dumps({"Layers": [layer("cast", "float32", kind="Reformat"), *multiplying], "Bindings": []})


def layer(name: str, precision: str, *, kind: str = "CaskConvolution", words: dict[str, str] = WORDS) -> dict[str, Any]:
    return {
        "Name": name,
        "LayerType": kind,
        "Inputs": [{"Name": "x", "Format/Datatype": words[precision]}],
        "Outputs": [{"Name": "y", "Format/Datatype": words["float32"]}],
        "TacticName": "sm80_xmma_fprop_implicit_gemm",
    }


def manifest(precision: str = "float32", **changes: Any) -> Manifest:
    """What is known of `graphs.save` before its engine is built."""
    known = Manifest(
        engine="tensorrt",
        precision=precision,  # type: ignore[arg-type]
        model="",
        files={},
        size_bytes=0,
        input_name="image",
        input_dtype="float32",
        output="logits",
        preprocessing=Preprocessing(
            in_graph=False, height=graphs.SIZE, width=graphs.SIZE, channels=1, mean=(0.0,), std=(1.0,)
        ),
        classes=("cat", "dog", "owl"),
        parameters=48,
        macs=None,
        source="0" * 64,
        opset=18,
    )
    return known.model_copy(update=changes)


def install(monkeypatch: pytest.MonkeyPatch, surface: dict[str, Any], version: str) -> World:
    """Put the imitated TensorRT and CUDA where `import` finds them."""
    double = Double(surface, version, {})
    world = World(double, FakeCuda())
    double.answers.update(_answers(world))
    cuda, bindings = ModuleType("cuda"), ModuleType("cuda.bindings")
    cuda.bindings = bindings  # type: ignore[attr-defined]
    bindings.runtime = world.cuda.module  # type: ignore[attr-defined]
    modules = {"tensorrt": double.module, "cuda": cuda, "cuda.bindings": bindings}
    modules["cuda.bindings.runtime"] = world.cuda.module
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return world


def build(folder: Path, precision: str = "float32", **options: Any) -> Path:
    """Build an engine of this precision."""
    model = graphs.save(folder.parent / f"{precision}.onnx", precision)
    TensorRT().build(model, folder, manifest(precision, options=options))
    return folder


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 1, 8, 8)).astype(np.float32)


def expected(folder: Path, given: np.ndarray) -> np.ndarray:
    with OnnxRuntime().open_file(folder.parent / "float32.onnx", threads=1) as session:
        return session.run(given)


def flags(world: World) -> set[str]:
    return {flag.name for (flag,) in world.double.called("IBuilderConfig.set_flag")}


def _answers(world: World) -> dict[str, Any]:
    trt = world.double.module
    state = world.state

    def parse(_: Any, path: str) -> bool:
        world.model = Path(path)
        return world.parses

    def refit(_: Any, path: str) -> bool:
        state["refitted"] = Path(path)
        return True

    def build(_: Any, network: Any, config: Any) -> bytes | None:
        drive(config)
        return None if world.error else b"a plan"

    def drive(config: Any) -> None:
        """The builder at work: phases in phases, and its log."""
        monitor = state["monitor"] = config.progress_monitor
        monitor.phase_start("Building Engine", None, 2)
        monitor.phase_start("Timing graph nodes", "Building Engine", 3)
        state["continued"] = [monitor.step_complete("Timing graph nodes", step) for step in range(3)]
        monitor.phase_finish("Timing graph nodes")
        state["continued"] += [monitor.step_complete("Building Engine", step) for step in range(2)]
        monitor.phase_finish("Building Engine")
        tell("Builder")

    def tell(owner: str) -> None:
        """What TensorRT writes to the logger that it was given."""
        logger = world.double.called(owner)[-1][0]
        for line in world.log:
            logger.log(trt.ILogger.INFO, line)
        if world.error:
            logger.log(trt.ILogger.ERROR, world.error)

    def deserialize(_: Any, plan: bytes) -> Any:
        tell("Runtime")
        return None if world.error else world.double.make("ICudaEngine")

    def set_shape(_: Any, name: str, shape: tuple[int, ...]) -> bool:
        low, _best, high = world.profiles[state.get("profile", 0)]
        state["shape"] = shape
        return low <= shape[0] <= high

    def set_profile(_: Any, index: int, stream: int) -> bool:
        state["profile"] = index
        return True

    def set_address(_: Any, name: str, address: int) -> bool:
        state[name] = address
        return True

    def execute(context: Any, stream: int) -> bool:
        shape, source, target = state["shape"], state[world.session.input_name], state["logits"]

        def compute() -> None:
            count = int(np.prod(shape))
            images = np.frombuffer((ctypes.c_float * count).from_address(source), np.float32).reshape(shape)
            answer = np.ascontiguousarray(world.session.run(images) * world.factor, dtype=np.float32)
            ctypes.memmove(target, answer.ctypes.data, answer.nbytes)

        world.cuda.submit(compute)
        if profiler := vars(context).get("profiler"):
            for name, ms in world.times_ms.items():
                profiler.report_layer_time(name, ms)
        return True

    def profile_shape(_: Any, name: str, index: int) -> list[tuple[int, ...]]:
        return [(batch, *sizes()) for batch in world.profiles[index]]

    def sizes() -> tuple[int, ...]:
        return tuple(size or 0 for size in world.session.input_shape[1:])

    def output_shape(_: Any, name: str) -> tuple[int, int]:
        return state["shape"][0], world.session.run(np.zeros((1, *sizes()), np.float32)).shape[1]

    return {
        "OnnxParser.parse_from_file": parse,
        "OnnxParser.num_errors": 1,
        "OnnxParser.get_error": lambda _, index: world.double.make("ParserError"),
        "ParserError.desc": "Unsupported operator\nGridSample",
        "ParserError.node_name": "stem",
        "ParserError.node_operator": "Conv",
        "OnnxParserRefitter.refit_from_file": refit,
        "Builder.build_serialized_network": build,
        "Builder.num_DLA_cores": 2,
        "ITimingCache.serialize": b"timings",
        "Runtime.deserialize_cuda_engine": deserialize,
        "ICudaEngine.num_io_tensors": 2,
        "ICudaEngine.get_tensor_name": lambda _, index: (world.session.input_name, "logits")[index],
        "ICudaEngine.get_tensor_mode": lambda _, name: trt.TensorIOMode["OUTPUT" if name == "logits" else "INPUT"],
        "ICudaEngine.get_tensor_dtype": lambda _, name: trt.DataType.FLOAT,
        "ICudaEngine.num_optimization_profiles": lambda _: len(world.profiles),
        "ICudaEngine.get_tensor_profile_shape": profile_shape,
        "ICudaEngine.device_memory_size_v2": 1 << 20,
        "EngineInspector.get_engine_information": lambda _, form: world.layers(),
        "IExecutionContext.set_input_shape": set_shape,
        "IExecutionContext.set_optimization_profile_async": set_profile,
        "IExecutionContext.set_tensor_address": set_address,
        "IExecutionContext.get_tensor_shape": output_shape,
        "IExecutionContext.execute_async_v3": execute,
    }
