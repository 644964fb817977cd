"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from kdeploy.engines._checks import compare, match, require_opset, seeded_images
from kdeploy.engines._folder import complete, copy_in
from kdeploy.engines.base import Availability, Engine, Manifest, Precision, Session
from kdeploy.errors import UserError

MODEL = "model.onnx"
_PROVIDER = "CPUExecutionProvider"
_DTYPES: Mapping[str, DTypeLike] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
}


class OnnxRuntime(Engine):
    """ONNX Runtime, CPU execution provider.

    The folder holds the ONNX file as it was exported, and the runtime optimises it while it opens. Saving the
    optimised graph instead was measured for ResNet-8 at two widths and in int8: it opens 3 to 4 ms sooner (1.5 to
    2 ms instead of 5 to 6), runs exactly as fast, and ties the file to one version of the runtime and, at the
    highest level, to one kind of processor.
    """

    name: ClassVar[str] = "onnxruntime"
    precisions: ClassVar[frozenset[Precision]] = frozenset({"float32", "float16", "int8", "mixed"})
    # Of 1.31, tried with one graph at each opset; an older ONNX Runtime takes less, and says so as it opens a file.
    highest_opset: ClassVar[int | None] = 26

    def available(self) -> Availability:
        """Whether `import onnxruntime` works and brings the runtime itself. Never raises."""
        install = "pip install onnxruntime"
        try:
            import onnxruntime
        except ImportError as error:
            return Availability(ok=False, reason=f"Python can't import onnxruntime ({error})", install=install)
        # What is left where two of its distributions were installed over each other and one was removed.
        if not hasattr(onnxruntime, "InferenceSession"):
            reason = "the installed onnxruntime is broken, as after removing one of two of its packages"
            return Availability(ok=False, reason=reason, install=f"{install} --force-reinstall")
        return Availability(ok=True, version=onnxruntime.__version__)

    def build(self, model: Path, folder: Path, manifest: Manifest) -> Manifest:
        """Copy the ONNX file `model` into `folder` and prove that the runtime computes what the graph says.

        The reference is the same runtime with all graph optimisations off (see `_checks.compare`). Raises UserError
        for a file that is not valid ONNX, GateFailed for float32 outputs that differ.
        """
        import onnxruntime

        require_opset(self, manifest, model)
        copy_in(model, folder, MODEL)
        with closing(self.open_reference(model)) as reference:
            match(reference.input_name, str(reference.input_dtype), manifest, model)
            images = seeded_images(manifest, reference.batch)
            expected = reference.run(images)
        with closing(self.open_file(folder / MODEL, threads=1)) as session:
            outputs = session.run(images)
        check = compare("ONNX Runtime", expected, outputs, manifest, model)
        details = {"onnxruntime": onnxruntime.__version__, "check": check}
        return complete(folder, manifest, engine=self.name, files=[MODEL], details=details)

    def open(self, folder: Path, manifest: Manifest, threads: int) -> OnnxSession:
        """Open a built engine with this many threads."""
        session = self.open_file(folder / manifest.model, threads)
        match(session.input_name, str(session.input_dtype), manifest, folder / manifest.model)
        return session

    def open_file(self, path: Path, threads: int) -> OnnxSession:
        """Open an ONNX file that has no manifest, such as somebody else's. Raises UserError where it can't be."""
        return _open(path, threads=threads, optimise=True)

    def open_reference(self, path: Path) -> OnnxSession:
        """Open an ONNX file without any optimisation of its graph: what other engines are compared with."""
        return _open(path, threads=1, optimise=False)


class OnnxSession(Session):
    """An open ONNX file with one input.

    Inputs and outputs are bound to buffers of our own, kept for the last shape: copying in and out included, that
    is 2 µs a call faster than `InferenceSession.run` (66.6 against 68.6 µs for a network of that size). So one
    session serves one thread at a time. What `run` returns is the caller's own.
    """

    def __init__(self, session: Any, threads: int, path: Path) -> None:
        self._session = session
        self._threads = threads
        self._path = path
        inputs = session.get_inputs()
        if len(inputs) != 1:
            raise UserError(f"{path} has {len(inputs)} inputs; kdeploy runs networks with one.")
        declared = inputs[0]
        if declared.type not in _DTYPES:
            raise UserError(f"{path} takes {declared.type}; kdeploy runs networks that take images.")
        self.input_name: str = declared.name
        self.input_dtype = np.dtype(_DTYPES[declared.type])
        self.input_shape: tuple[int | None, ...] = tuple(
            size if isinstance(size, int) and size > 0 else None for size in declared.shape
        )
        """Sizes in the file's own order, None where the size is left open."""
        self.batch = self.input_shape[0] if self.input_shape else None
        """The one batch size that the file takes, None: any."""
        self._output_names = [output.name for output in session.get_outputs()]
        self._bound: _Bound | None = None

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """One synchronous inference; a network with several outputs computes all and returns the first."""
        bound = self._bound
        if bound is None or bound.input.shape != images.shape:
            return self._first_run(images)
        np.copyto(bound.input, images, casting="no")
        self._session.run_with_iobinding(bound.binding)
        return bound.outputs[0].copy()

    def describe(self) -> dict[str, Any]:
        """Version, providers, threads, and where this ONNX Runtime tells it, the nodes that each provider took."""
        import onnxruntime

        described: dict[str, Any] = {
            "onnxruntime": onnxruntime.__version__,
            "providers": self._session.get_providers(),
            "threads": self._threads,
            "spinning": self._threads > 1,
        }
        if _tells_assignment():
            nodes: Counter[str] = Counter()
            for part in self._session.get_provider_graph_assignment_info():
                nodes[part.ep_name] += len(part.get_nodes())
            described["nodes"] = dict(nodes)
        return described

    def close(self) -> None:
        """Release the runtime's session and the buffers."""
        self._bound = None
        self._session = None

    def _first_run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Run a shape for the first time, and bind buffers for the runs that follow.

        The shapes of the outputs are known for certain only after a run.
        """
        if images.dtype != self.input_dtype:
            raise ValueError(f"{self.input_name} takes {self.input_dtype}, not {images.dtype}")
        try:
            outputs = self._session.run(self._output_names, {self.input_name: np.ascontiguousarray(images)})
        except Exception as error:  # as in _open
            shape = list(images.shape)
            raise UserError(f"ONNX Runtime can't run {self._path} on an input of {shape}: {_reason(error)}.") from None
        self._bound = _Bound(self._session.io_binding(), self.input_name, images, self._output_names, outputs)
        first: NDArray[np.float32] = outputs[0]
        return first


class _Bound:
    """An IO binding with the arrays that it reads and writes, kept alive together."""

    def __init__(
        self, binding: Any, input_name: str, like: NDArray[Any], output_names: list[str], outputs: list[NDArray[Any]]
    ) -> None:
        self.binding = binding
        self.input = np.empty(like.shape, like.dtype)
        self.outputs = [np.empty(output.shape, output.dtype) for output in outputs]
        binding.bind_input(input_name, "cpu", 0, like.dtype, self.input.shape, self.input.ctypes.data)
        for name, output in zip(output_names, self.outputs, strict=True):
            binding.bind_output(name, "cpu", 0, output.dtype, output.shape, output.ctypes.data)


def _open(path: Path, *, threads: int, optimise: bool) -> OnnxSession:
    import onnxruntime

    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # errors: what is wrong with a file comes back as an exception
    # With more than one thread the workers spin between operators: the runtime's default and its lowest latency,
    # at the price of busy cores. Set here so that a change of the default does not change our measurements.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    if _tells_assignment():
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        # enable_fallback=0: after a failed start the runtime would print to standard output and try other providers.
        session = onnxruntime.InferenceSession(str(path), options, providers=[_PROVIDER], enable_fallback=0)
    except Exception as error:  # the runtime's exceptions share no base class
        raise UserError(f"ONNX Runtime {onnxruntime.__version__} can't open {path}: {_reason(error)}.") from None
    return OnnxSession(session, threads, path)


def _tells_assignment() -> bool:
    """Whether this ONNX Runtime records which provider took each node; the call is younger than our lower bound."""
    import onnxruntime

    return hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info")


def _reason(error: Exception) -> str:
    """The part of the runtime's message that says why: "… : INVALID_PROTOBUF : Load model from X failed:WHY"."""
    message = str(error).strip() or type(error).__name__
    return message.splitlines()[0].split(" failed:", 1)[-1].strip().rstrip(".")
