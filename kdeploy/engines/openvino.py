"""OpenVINO on the CPU."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kdeploy.engines._checks import Operators, compare, match, require_opset, require_precision, seeded_images
from kdeploy.engines._folder import complete, copy_in
from kdeploy.engines.base import Availability, Engine, Manifest, Precision, Session
from kdeploy.engines.onnxruntime import OnnxRuntime
from kdeploy.errors import Unavailable, UserError

GRAPH, WEIGHTS = "model.xml", "model.bin"
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
_NO_OPERATORS = frozenset({"Const", "Input", "Output"})


class OpenVino(Engine):
    """OpenVINO, CPU plugin.

    The folder holds the graph in OpenVINO's own form, so that a device needs no reader of ONNX; it is compiled for the
    processor as it opens. Its precision is the graph's; bfloat16 is the float32 graph computed in bfloat16, which a
    recipe asks for by name.
    """

    name: ClassVar[str] = "openvino"
    # OpenVINO's reader refuses no opset by its number. 23 is the newest that kdeploy writes and its tests prove.
    highest_opset: ClassVar[int | None] = 23

    def available(self) -> Availability:
        """Whether `import openvino` works. Never raises."""
        install = "pip install 'kdeploy[openvino]'"
        try:
            import openvino
        except (ImportError, OSError) as error:  # OSError: a shared library of its is missing
            return Availability(ok=False, reason=f"Python can't import openvino ({error})", install=install)
        return Availability(ok=True, version=str(openvino.__version__).split("-")[0])

    def build(self, model: Path, folder: Path, manifest: Manifest) -> Manifest:
        """Convert the ONNX file `model` and prove that OpenVINO computes what the graph says, in its precision.

        The reference is ONNX Runtime with all graph optimisations off (see `_checks.compare`). Raises UserError for a
        file that OpenVINO cannot read, Unavailable where this processor does not compute in the precision asked for,
        GateFailed where the outputs or the compiled operators are not what was asked for.
        """
        require_opset(self, manifest, model)
        _convert(model, folder)
        with closing(OnnxRuntime().open_reference(model)) as reference:
            match(reference.input_name, str(reference.input_dtype), manifest, model)
            images = seeded_images(manifest, reference.batch)
            expected = reference.run(images)
        with closing(_open(folder / GRAPH, manifest.precision, threads=1)) as session:
            outputs, operators = session.run(images), session.operators()
        require_precision("OpenVINO", operators, manifest, model)
        check = compare("OpenVINO", expected, outputs, manifest, model)
        details = {"openvino": self.available().version, "operators": operators, "check": check}
        return complete(folder, manifest, engine=self.name, files=[GRAPH, WEIGHTS], details=details)

    def open(self, folder: Path, manifest: Manifest, threads: int) -> OpenVinoSession:
        """Open a built engine with this many threads."""
        session = _open(folder / manifest.model, manifest.precision, threads)
        match(session.input_name, str(session.input_dtype), manifest, folder / manifest.model)
        return session


class OpenVinoSession(Session):
    """A compiled graph with one input, and one request, so it serves one thread at a time."""

    def __init__(self, compiled: Any, path: Path) -> None:
        if len(compiled.inputs) != 1:
            raise UserError(f"{path} has {len(compiled.inputs)} inputs; kdeploy runs networks with one.")
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._path = path
        declared = compiled.input(0)
        self.input_name: str = declared.get_any_name()
        self.input_dtype = np.dtype(declared.get_element_type().to_dtype())

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """One synchronous inference; a network with several outputs computes all and returns the first."""
        if images.dtype != self.input_dtype:
            raise ValueError(f"{self.input_name} takes {self.input_dtype}, not {images.dtype}")
        try:
            # share_inputs: read in place, not copied first; what comes back is copied, because the request writes
            # the next answer to the same memory.
            self._request.infer({0: np.ascontiguousarray(images)}, share_inputs=True)
        except RuntimeError as error:
            shape = list(images.shape)
            raise UserError(f"OpenVINO can't run {self._path} on an input of {shape}: {_reason(error)}.") from None
        outputs: NDArray[np.float32] = self._request.get_output_tensor(0).data.astype(np.float32)
        return outputs

    def describe(self) -> dict[str, Any]:
        """Version, devices really in use, threads, operators by precision after compilation, bytes on disk."""
        return {
            "openvino": OpenVino().available().version,
            "devices": list(self._compiled.get_property("EXECUTION_DEVICES")),
            "threads": self._compiled.get_property("INFERENCE_NUM_THREADS"),
            "operators": self.operators(),
            "size_bytes": sum(self._path.with_name(name).stat().st_size for name in (GRAPH, WEIGHTS)),
        }

    def operators(self) -> Operators:
        """What the compiled graph computes, by precision; constants, inputs and outputs are left out."""
        counts: dict[str, Counter[str]] = {}
        for node in self._compiled.get_runtime_model().get_ordered_ops():
            facts = node.get_rt_info()
            precision, kind = (facts[key].astype(str) for key in ("runtimePrecision", "layerType"))
            if kind not in _NO_OPERATORS:
                counts.setdefault(_DTYPES.get(precision, precision), Counter())[kind] += 1
        return {precision: dict(counter) for precision, counter in counts.items()}

    def close(self) -> None:
        """Release the compiled graph."""
        self._request = self._compiled = None


def _convert(model: Path, folder: Path) -> None:
    """Write an ONNX file to `folder` in OpenVINO's own form, with all its weights as they are."""
    import openvino

    if not model.is_file():
        raise UserError(f"There is no file {model}.")
    with tempfile.TemporaryDirectory(prefix="kdeploy-") as temporary:
        written = Path(temporary) / GRAPH
        try:
            openvino.save_model(openvino.Core().read_model(model), written, compress_to_fp16=False)
        except RuntimeError as error:
            raise UserError(f"OpenVINO {openvino.__version__} can't read {model}: {_reason(error)}.") from None
        for name in (GRAPH, WEIGHTS):
            copy_in(written.with_name(name), folder, name)


def _open(path: Path, precision: Precision, threads: int) -> OpenVinoSession:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
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
    return OpenVinoSession(compiled, path)


def _reason(error: Exception) -> str:
    """The last line of OpenVINO's message: the lines before it are where in its source it was raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__
