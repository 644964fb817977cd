"""OpenVINO on the CPU."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kdeploy.engines._checks import Operators, compare, match, require_opset, require_precision, seeded_images
from kdeploy.engines._folder import complete, copy_in
from kdeploy.engines._onnx_file import read
from kdeploy.engines._openvino_profile import STRETCH, WARM_UP, Compiled, Means, between, layer_times
from kdeploy.engines._profiling import timed
from kdeploy.engines.base import Availability, Engine, InParts, Manifest, Precision, Profile, Session
from kdeploy.engines.onnxruntime import OnnxRuntime
from kdeploy.errors import Unavailable, UserError, install_command

MODEL = "model.onnx"
_DEVICE = "CPU"
_HINTS: Mapping[Precision, str] = {
    "float32": "f32",
    "int8": "f32",
    "mixed": "f32",
    "bfloat16": "bf16",
    "float16": "f16",
}
"""In what the operators compute that the graph does not quantise. Left to itself the CPU plugin takes bfloat16 or
float16 for a float32 graph where the processor multiplies it, which is not what the row of a table then says."""
_DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "i8": "int8", "u8": "uint8", "i32": "int32"}
_AFTER_COMPILING = 3
"""Calls until what compiling another graph has pushed out of the caches is back in them."""
_NO_OPERATORS = frozenset({"Const", "Input", "Output"})


class OpenVino(Engine):
    """OpenVINO, CPU plugin.

    The folder holds the ONNX file as it was exported, and it is compiled for the processor as it opens. OpenVINO's own
    form of the same graph opened no sooner and was larger, up to six times for a small network in int8. Its precision
    is the graph's; bfloat16 is the float32 graph computed in bfloat16, which a recipe asks for by name.
    """

    name: ClassVar[str] = "openvino"
    # OpenVINO's reader refuses no opset by its number. 23 is the newest that kdeploy writes and its tests prove.
    highest_opset: ClassVar[int | None] = 23

    def available(self) -> Availability:
        """Whether `import openvino` works. Never raises."""
        install = install_command("openvino")
        try:
            import openvino
        except (ImportError, OSError) as error:  # OSError: a shared library of its is missing
            return Availability(ok=False, reason=f"Python can't import openvino ({error})", install=install)
        return Availability(ok=True, version=str(openvino.__version__).split("-")[0])

    def build(self, model: Path, folder: Path, manifest: Manifest) -> Manifest:
        """Copy the ONNX file `model` into `folder` and prove that OpenVINO computes what the graph says.

        The reference is ONNX Runtime with all graph optimisations off (see `_checks.compare`). Raises UserError for a
        file that OpenVINO cannot read, Unavailable where this processor does not compute in the precision asked for,
        GateFailed where the outputs or the compiled operators are not what was asked for.
        """
        require_opset(self, manifest, model)
        copy_in(model, folder, MODEL)
        with closing(OnnxRuntime().open_reference(model)) as reference:
            match(reference.input_name, str(reference.input_dtype), manifest, model)
            images = seeded_images(manifest, reference.batch)
            expected = reference.run(images)
        with closing(_open(folder / MODEL, manifest.precision, threads=1)) as session:
            outputs, operators = session.run(images), session.operators()
        require_precision("OpenVINO", operators, manifest, model)
        check = compare("OpenVINO", expected, outputs, manifest, model)
        details = {"openvino": self.available().version, "operators": operators, "check": check}
        return complete(folder, manifest, engine=self.name, files=[MODEL], details=details)

    def open(self, folder: Path, manifest: Manifest, threads: int) -> OpenVinoSession:
        """Open a built engine with this many threads."""
        session = _open(folder / manifest.model, manifest.precision, threads)
        match(session.input_name, str(session.input_dtype), manifest, folder / manifest.model)
        return session

    def profile(
        self, folder: Path, manifest: Manifest, threads: int, inputs: Sequence[NDArray[Any]], calls: int
    ) -> Profile:
        """Times by layer from OpenVINO's performance counters; see `Engine.profile`.

        In stretches of ten calls, of each of which the counters give a mean; `calls` is rounded up to whole ones.
        """
        path, count = folder / manifest.model, -(-calls // STRETCH)
        stretches: list[list[float]] = []
        profiled: list[float] = []
        plain: list[float] = []
        with closing(self.open(folder, manifest, threads)) as usual:
            timed(usual.run, inputs, WARM_UP)
            for first in range(0, count * STRETCH, STRETCH):
                with closing(_open(path, manifest.precision, threads, counting=True)) as session:
                    timed(session.run, inputs, WARM_UP - 1)  # the first runs twice: once to know the output's shape
                    before = session.running_means()
                    profiled += timed(session.run, inputs, STRETCH, first=first)
                    after = session.running_means()
                    compiled = session.compiled()
                stretches.append(between(before, after))
                timed(usual.run, inputs, _AFTER_COMPILING)
                plain += timed(usual.run, inputs, STRETCH, first=first)
        return Profile(
            profiler=f"OpenVINO {self.available().version}",
            calls=count * STRETCH,
            layers=layer_times([name for name, _ in after], stretches, compiled, read(path).nodes),
            profiled_us=tuple(profiled),
            plain_us=tuple(plain),
            grouped=STRETCH,
            notes=("OpenVINO tells running means in whole microseconds: a layer's time is right to about one.",),
        )


class OpenVinoSession(Session):
    """A compiled graph with one input, and one request, so it serves one thread at a time.

    Input and output are bound to arrays of our own, kept for the last shape: handing them over at each call takes
    OpenVINO's binding longer than a small network runs. What `run` returns is the caller's own.
    """

    def __init__(self, compiled: Any, path: Path, threads: int) -> None:
        if len(compiled.inputs) != 1:
            raise UserError(f"{path} has {len(compiled.inputs)} inputs; kdeploy runs networks with one.")
        self._compiled = compiled
        self._bound: _Bound | None = None
        self._path = path
        self._threads = threads
        declared = compiled.input(0)
        self.input_name: str = declared.get_any_name()
        self.input_dtype = np.dtype(declared.get_element_type().to_dtype())

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """One synchronous inference; a network with several outputs computes all and returns the first."""
        bound = self._bound
        if bound is None or bound.input.shape != images.shape:
            bound = self._bound = self._bind(images)
        np.copyto(bound.input, images, casting="no")
        bound.request.infer(share_inputs=True, share_outputs=True)
        return bound.output.astype(np.float32)

    def run_in_parts(self, images: NDArray[Any]) -> InParts:
        """See `Session.run_in_parts`."""
        bound = self._bound
        if bound is None or bound.input.shape != images.shape:
            bound = self._bound = self._bind(images)
        start = time.perf_counter_ns()
        np.copyto(bound.input, images, casting="no")
        copied = time.perf_counter_ns()
        bound.request.infer(share_inputs=True, share_outputs=True)
        computed = time.perf_counter_ns()
        outputs = bound.output.astype(np.float32)
        end = time.perf_counter_ns()
        return InParts(outputs, computed - copied, copied - start + end - computed)

    def describe(self) -> dict[str, Any]:
        """Version, devices really in use, threads, operators by precision after compilation, bytes on disk."""
        return {
            "openvino": OpenVino().available().version,
            "devices": list(self._compiled.get_property("EXECUTION_DEVICES")),
            "threads": self._threads,
            "streams": self._compiled.get_property("NUM_STREAMS"),
            "operators": self.operators(),
            "size_bytes": self._path.stat().st_size,
        }

    def operators(self) -> Operators:
        """What the compiled graph computes, by precision; constants, inputs and outputs are left out."""
        counts: dict[str, Counter[str]] = {}
        for layer in self.compiled():
            if layer.operator not in _NO_OPERATORS:
                counts.setdefault(layer.precision, Counter())[layer.operator] += 1
        return {precision: dict(counter) for precision, counter in counts.items()}

    def running_means(self) -> Means:
        """The performance counters of a graph that was opened with them and has run."""
        if self._bound is None:
            raise ValueError("nothing was run yet")
        counters = self._bound.request.get_profiling_info()
        return [(counter.node_name, counter.real_time // timedelta(microseconds=1)) for counter in counters]

    def compiled(self) -> list[Compiled]:
        """The layers of the compiled graph, constants among them."""
        found = []
        for node in self._compiled.get_runtime_model().get_ordered_ops():
            facts = node.get_rt_info()
            precision, kind, originals = (
                facts[key].astype(str) for key in ("runtimePrecision", "layerType", "originalLayersNames")
            )
            names = tuple(filter(None, originals.split(",")))
            found.append(Compiled(node.get_friendly_name(), kind, _DTYPES.get(precision, precision), names))
        return found

    def close(self) -> None:
        """Release the compiled graph."""
        self._bound = self._compiled = None

    def _bind(self, images: NDArray[Any]) -> _Bound:
        """A request with arrays for these images; the shape of the output is known for certain only after a run."""
        if images.dtype != self.input_dtype:
            raise ValueError(f"{self.input_name} takes {self.input_dtype}, not {images.dtype}")
        request = self._compiled.create_infer_request()
        try:
            request.infer({0: np.ascontiguousarray(images)})
        except RuntimeError as error:
            shape = list(images.shape)
            raise UserError(f"OpenVINO can't run {self._path} on an input of {shape}: {_reason(error)}.") from None
        return _Bound(request, images)


class _Bound:
    """A request that was run once, with the arrays that it reads and writes, kept alive together."""

    def __init__(self, request: Any, like: NDArray[Any]) -> None:
        from openvino import Tensor

        self.request = request
        self.input = np.empty(like.shape, like.dtype)
        self.output: NDArray[Any] = np.empty_like(request.get_output_tensor(0).data)
        request.set_input_tensor(0, Tensor(self.input, shared_memory=True))
        request.set_output_tensor(0, Tensor(self.output, shared_memory=True))


def _open(path: Path, precision: Precision, threads: int, *, counting: bool = False) -> OpenVinoSession:
    """counting: with OpenVINO's performance counters."""
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        # A stream has threads of its own, to which it hands each call over. Without one the
        # caller's own thread computes, which is all that is wanted of a single thread.
        "NUM_STREAMS": 0 if threads == 1 else 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "PERF_COUNT": counting,
    }
    try:
        compiled = openvino.Core().compile_model(path, _DEVICE, settings)
    except RuntimeError as error:
        raise UserError(f"OpenVINO {openvino.__version__} can't open {path}: {_reason(error)}.") from None
    # A hint that the processor can't follow is replaced without a word: float16 by bfloat16, that by float32.
    taken = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if taken != _HINTS[precision]:
        instead = _DTYPES.get(taken, taken)
        raise Unavailable(f"OpenVINO computes no {precision} on this processor (for {path} it would take {instead}).")
    return OpenVinoSession(compiled, path, threads)


def _reason(error: Exception) -> str:
    """The last line of OpenVINO's message: the lines before it are where in its source it was raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__
