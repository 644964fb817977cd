"""A session of ONNX Runtime: how a file is opened, what becomes of its nodes, and how it is run."""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from kdeploy import events
from kdeploy.engines._checks import Operators
from kdeploy.engines._onnxruntime_options import Level, OnnxRuntimeOptions
from kdeploy.engines._onnxruntime_trace import kernels, load
from kdeploy.engines._providers import PROVIDERS
from kdeploy.engines.base import InParts, Precision, Session
from kdeploy.errors import Unavailable, UserError
from kdeploy.machine.installed import onnxruntime_distributions

_CPU = PROVIDERS["cpu"].registered
_DTYPES: Mapping[str, DTypeLike] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
}


@dataclass(frozen=True)
class Opening:
    """How a file is opened."""

    path: Path
    threads: int
    options: OnnxRuntimeOptions
    optimisation: Level
    """As it opens; none where the graph was optimised before."""
    precision: Precision = "float32"

    def session(self) -> OnnxSession:
        """The session, on the provider that was asked for.

        Raises UserError for a file that can't be opened and for nodes that the provider leaves to others, unless
        `allow_fallback` lets it; Unavailable where this ONNX Runtime has no such provider.
        """
        if not self.path.is_file():
            raise UserError(f"There is no file {self.path}.")
        _require_provider(self.options)
        opened = OnnxSession(self.start(), self)
        opened.check_fallback()
        return opened

    def start(
        self, profile: Path | None = None, optimised: Path | None = None, entries: Mapping[str, str] | None = None
    ) -> Any:
        """ONNX Runtime's own session.

        profile: folder in which it writes down what it runs. optimised: file to which it writes the optimised graph.
        entries: further entries of its configuration.
        """
        import onnxruntime

        try:
            options = self.options.session_options(self.threads, optimisation=self.optimisation)
            if tells_assignment():
                options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
            elif self.options.provider != "cpu" and not self.options.allow_fallback:
                options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
            for name, value in (entries or {}).items():
                options.add_session_config_entry(name, value)
            if profile is not None:
                options.enable_profiling, options.profile_file_prefix = True, str(profile / "profile")
            if optimised is not None:
                options.optimized_model_filepath = str(optimised)
            # enable_fallback=0: after a failed start the runtime would print to standard output and try other
            # providers.
            return onnxruntime.InferenceSession(str(self.path), options, providers=self._providers(), enable_fallback=0)
        except Exception as error:  # the runtime's exceptions share no base class
            version = onnxruntime.__version__
            raise UserError(f"ONNX Runtime {version} can't open {self.path}: {reason(error)}.") from None

    def _providers(self) -> list[tuple[str, dict[str, str]]]:
        """What was asked for; behind TensorRT, where it may fall back, CUDA, so that nodes stay on the GPU.

        The CPU is behind them by itself.
        """
        import onnxruntime

        options = self.options
        providers = [(options.asked, options.provider_options)]
        cuda = PROVIDERS["cuda"]
        may_use_cuda = options.allow_fallback and cuda.registered in onnxruntime.get_available_providers()
        if options.provider == "tensorrt" and may_use_cuda:
            providers.append((cuda, {}))
        return [(one.registered, one.spell(given, self.precision, self.threads)) for one, given in providers]


class OnnxSession(Session):
    """An open ONNX file with one input.

    Inputs and outputs are bound to buffers of our own, kept for the last shape: copying in and out included, that
    is 2 µs a call faster than `InferenceSession.run` (66.6 against 68.6 µs for a network of that size). So one
    session serves one thread at a time. What `run` returns is the caller's own. Outputs whose size depends on what is
    seen (boxes after suppression), or that are no tensors, are left to the runtime.
    """

    def __init__(self, session: Any, opening: Opening) -> None:
        self._session = session
        self.opening = opening
        path = opening.path
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
        outputs = session.get_outputs()
        self._output_names = [output.name for output in outputs]
        self._may_bind = all(_known_size(output) for output in outputs)
        self._bound: _Bound | None = None

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """One synchronous inference; a network with several outputs computes all and returns the first."""
        bound = self._bound
        if bound is None or bound.input.shape != images.shape or images.dtype != self.input_dtype:
            return self._first_run(images)
        bound.input[...] = images
        self._session.run_with_iobinding(bound.binding)
        return bound.outputs[0].copy()

    def run_in_parts(self, images: NDArray[Any]) -> InParts:
        """See `Session.run_in_parts`."""
        bound = self._bound
        if bound is None or bound.input.shape != images.shape or images.dtype != self.input_dtype:
            self._first_run(images)
            bound = self._bound
        if bound is None:
            return super().run_in_parts(images)
        start = time.perf_counter_ns()
        bound.input[...] = images
        copied = time.perf_counter_ns()
        self._session.run_with_iobinding(bound.binding)
        computed = time.perf_counter_ns()
        outputs = bound.outputs[0].copy()
        end = time.perf_counter_ns()
        return InParts(outputs, computed - copied, copied - start + end - computed)

    def describe(self) -> dict[str, Any]:
        """Version, providers, options, threads, bytes, operators, and where it is told, the nodes of each provider.

        Operators need a shape to run with: they are left out where an input leaves more than its batch open and
        nothing was run yet.
        """
        import onnxruntime

        opening = self.opening
        described: dict[str, Any] = {
            "onnxruntime": onnxruntime.__version__,
            "providers": self._session.get_providers(),
            "asked_provider": opening.options.asked.registered,
            "options": opening.options.model_dump(),
            "threads": opening.threads,
            "spinning": opening.threads > 1 and opening.options.spinning,
            "size_bytes": opening.path.stat().st_size,
        }
        if tells_assignment():
            described["nodes"] = {provider: kinds.total() for provider, kinds in self._nodes().items()}
        shape = self._bound.input.shape if self._bound else (self.batch or 1, *self.input_shape[1:])
        fixed = [size for size in shape if size is not None]
        if len(fixed) == len(shape):
            described["operators"] = self.operators(np.zeros(fixed, self.input_dtype))
        return described

    def operators(self, images: NDArray[Any]) -> Operators:
        """What really runs for these images, by the precision of each operator's first input.

        From the runtime's own profile of a second session: the graph is open to nobody after it was optimised. Empty
        for a provider that compiles: it would compile once more, and tell nothing.
        """
        if self.opening.options.asked.compiles:
            return {}
        with tempfile.TemporaryDirectory(prefix="kdeploy-") as folder:
            session = self.opening.start(profile=Path(folder))
            session.run(self._output_names, {self.input_name: images})
            happened = load(Path(session.end_profiling()))
        counts: dict[str, Counter[str]] = {}
        for kernel in kernels(happened):
            counts.setdefault(kernel.precision, Counter())[kernel.operator] += 1
        return {precision: dict(counter) for precision, counter in counts.items()}

    def check_fallback(self) -> None:
        """Say which nodes the provider that was asked for has left to others; without `allow_fallback` that fails."""
        options, path = self.opening.options, self.opening.path
        asked = options.asked.registered
        if options.provider == "cpu":
            return
        if not tells_assignment():
            events.warn(f"{path}: this ONNX Runtime does not tell which nodes run on {asked}; a newer one does.")
            return
        nodes = self._nodes()
        elsewhere = sum((kinds for provider, kinds in nodes.items() if provider != asked), Counter[str]())
        if not elsewhere:
            return
        every = sum(kinds.total() for kinds in nodes.values())
        listed = ", ".join(f"{count} {kind}" for kind, count in elsewhere.most_common(5))
        others = " and ".join(provider for provider in nodes if provider != asked)
        said = f"{elsewhere.total()} of the {every} nodes of {path} run on {others}, not on {asked} ({listed})"
        if not options.allow_fallback:
            raise UserError(f"{said}. Type --allow-fallback, or set the option allow_fallback, to take that.")
        events.warn(f"{said}.")

    def _nodes(self) -> dict[str, Counter[str]]:
        """The kinds of nodes that each provider took."""
        nodes: dict[str, Counter[str]] = {}
        for part in self._session.get_provider_graph_assignment_info():
            nodes.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
        return nodes

    def end_profiling(self) -> Path:
        """Where the trace lies of a session that was started with a folder for its profile."""
        return Path(self._session.end_profiling())

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
        except Exception as error:  # as in Opening.start
            path, shape = self.opening.path, list(images.shape)
            raise UserError(f"ONNX Runtime can't run {path} on an input of {shape}: {reason(error)}.") from None
        first: NDArray[np.float32] = outputs[0]
        if not isinstance(first, np.ndarray):
            kind = "a list" if isinstance(first, list) else f"a {type(first).__name__}"
            raise UserError(
                f"The first output of {self.opening.path}, {self._output_names[0]!r}, is {kind}; kdeploy runs networks "
                "whose first output is a tensor."
            )
        if self._may_bind:
            self._bound = _Bound(self._session.io_binding(), self.input_name, images, self._output_names, outputs)
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


def _known_size(output: Any) -> bool:
    """Whether an output is a tensor of which only the first size, the batch, may change."""
    return output.type.startswith("tensor(") and all(isinstance(size, int) for size in output.shape[1:])


def tells_assignment() -> bool:
    """Whether this ONNX Runtime records which provider took each node; the call is younger than our lower bound."""
    import onnxruntime

    return hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info")


def reason(error: Exception) -> str:
    """The part of the runtime's message that says why: "… : INVALID_PROTOBUF : Load model from X failed:WHY"."""
    message = str(error).strip() or type(error).__name__
    if newer := re.search(r"Opset (\d+) is under development.*till opset (\d+)", message, re.DOTALL):
        return f"it has opset {newer[1]}, and {newer[2]} is the highest that it takes"
    return message.splitlines()[0].split(" failed:", 1)[-1].strip().rstrip(".")


def _require_provider(options: OnnxRuntimeOptions) -> None:
    """Raise Unavailable, with the command, where the installed ONNX Runtime lacks the provider."""
    import onnxruntime

    asked = options.asked
    if asked.registered in onnxruntime.get_available_providers():
        return
    remedy = asked.otherwise
    if asked.package is not None:
        installed = " ".join(onnxruntime_distributions()) or "onnxruntime"
        remedy = f"type: pip uninstall -y {installed} && pip install {asked.package}"
    raise Unavailable(f"The installed ONNX Runtime {onnxruntime.__version__} has no {asked.registered}: {remedy}.")
