"""Open a plan and run it: one CUDA stream, pinned memory, and where asked a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdeploy import events
from kdeploy.engines.base import Manifest, Session
from kdeploy.engines.tensorrt import cuda, machine
from kdeploy.engines.tensorrt.listeners import make_logger
from kdeploy.engines.tensorrt.options import Options
from kdeploy.errors import UserError

Shape = tuple[int, ...]


class TensorRTSession(Session):
    """A plan with one input and one or more outputs, of which the first is given back.

    One session serves one thread at a time. What `run` returns is the caller's own.
    """

    def __init__(self, path: Path, options: Options, weights: Path | None = None) -> None:
        """Open the plan at `path`; `weights` is the ONNX file that a plan without weights takes them from.

        Raises UserError where TensorRT does not open it, Unavailable where CUDA finds no device.
        """
        import tensorrt as trt

        self._path = path
        self._options = options
        self._trt = trt
        self._cudart = cuda.runtime()
        cuda.device()  # a machine without a device is told in CUDA's words, not as a plan that can't be opened
        self.built: dict[str, Any] = {}
        """What was found when the plan was built: its multiplying layers by precision, its bytes on the disk."""
        self._profile = 0
        self._pairs: dict[str, cuda.Pair] = {}
        self._shape: Shape | None = None
        self._graph: Any = None
        self._launch: Callable[[], None] = self._enqueue
        self._stream: Any = None
        self._logger = make_logger(trt)
        self._runtime = trt.Runtime(self._logger)
        self.engine = self._deserialize(weights)
        self._name_tensors()
        self.context = self.engine.create_execution_context()
        if self.context is None:
            raise UserError(f"TensorRT {trt.__version__} can't run {path}: {_last(self._logger.errors)}")
        self._stream = cuda.call(self._cudart.cudaStreamCreate)

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """One synchronous inference; see `Session.run`. Raises UserError for a batch that no profile takes."""
        if images.shape != self._shape:
            self._prepare(images)
        np.copyto(self._host_input, images, casting="no")
        self._launch()
        cuda.call(self._cudart.cudaStreamSynchronize, self._stream)
        return self._host_outputs[0].astype(np.float32)

    def describe(self) -> dict[str, Any]:
        """Version, device, profiles, bytes on the device, whether it is a CUDA graph, and what its build found."""
        capability, name = cuda.device()
        return {
            "tensorrt": self._trt.__version__,
            "providers": [f"TensorRT on {name} (compute capability {capability})"],
            "profiles": [[list(shape) for shape in self._profile_shapes(index)] for index in self._profiles()],
            "device_memory_bytes": self.engine.device_memory_size_v2,
            "cuda_graph": self._options.cuda_graph,
            **self.built,
        }

    def layers(self) -> str:
        """The engine inspector's JSON, with the shapes of the first profile's optimum filled in."""
        inspector = self.engine.create_engine_inspector()
        optimum = self._profile_shapes(0)[1]
        self.context.set_input_shape(self.input_name, optimum)
        inspector.execution_context = self.context  # without one, open shapes hide the types
        self._shape = None
        text: str = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        return text

    def watch(self, profiler: Any) -> None:
        """Tell `profiler` (`listeners.make_profiler`) each layer's time, from the next run on."""
        self.context.profiler = profiler

    def close(self) -> None:
        """Give back the graph, the memory and the stream, then the engine."""
        self._drop_graph()
        while self._pairs:
            self._pairs.popitem()[1].free()
        if self._stream is not None:
            cuda.call(self._cudart.cudaStreamDestroy, self._stream)
            self._stream = None
        self.context = self.engine = self._runtime = None

    @property
    def batches(self) -> tuple[int, int]:
        """The least and the largest batch that any profile takes."""
        shapes = [self._profile_shapes(index) for index in self._profiles()]
        return min(low[0] for low, _, _ in shapes), max(high[0] for _, _, high in shapes)

    def _deserialize(self, weights: Path | None) -> Any:
        runtime = self._runtime
        if self._options.version_compatible:
            runtime.engine_host_code_allowed = True  # such a plan brings the runtime that opens it
        if self._options.dla_core is not None:
            runtime.DLA_core = self._options.dla_core
        engine = runtime.deserialize_cuda_engine(self._path.read_bytes())
        if engine is None:
            raise UserError(f"TensorRT {self._trt.__version__} can't open {self._path}: {_last(self._logger.errors)}")
        if weights is not None:
            self._refit(engine, weights)
        return engine

    def _name_tensors(self) -> None:
        trt, engine = self._trt, self.engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self._outputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT]
        if len(inputs) != 1:
            raise UserError(f"{self._path} has {len(inputs)} inputs; kdeploy runs networks with one.")
        self.input_name: str = inputs[0]
        self.input_dtype = self._dtype(self.input_name)

    def _dtype(self, name: str) -> np.dtype[Any]:
        trt = self._trt
        kinds = {
            trt.DataType.FLOAT: np.float32,
            trt.DataType.HALF: np.float16,
            trt.DataType.UINT8: np.uint8,
            trt.DataType.INT8: np.int8,
            trt.DataType.INT32: np.int32,
            trt.DataType.INT64: np.int64,
        }
        declared = self.engine.get_tensor_dtype(name)
        if declared not in kinds:
            raise UserError(f"{self._path}: {name!r} is {declared}, which NumPy does not hold. Export it as float32.")
        return np.dtype(kinds[declared])

    def _profiles(self) -> range:
        return range(self.engine.num_optimization_profiles)

    def _profile_shapes(self, index: int) -> tuple[Shape, Shape, Shape]:
        low, best, high = (tuple(shape) for shape in self.engine.get_tensor_profile_shape(self.input_name, index))
        return low, best, high

    def _prepare(self, images: NDArray[Any]) -> None:
        """Settle profile, shapes and memory for images of a new shape."""
        if images.dtype != self.input_dtype:
            raise ValueError(f"{self.input_name} takes {self.input_dtype}, not {images.dtype}")
        self._shape = None
        self._drop_graph()
        self._choose_profile(images.shape)
        if not self.context.set_input_shape(self.input_name, images.shape):
            raise self._refusal(images.shape)
        self._host_input = self._pair(self.input_name, images.shape, self.input_dtype)
        self._host_outputs = [
            self._pair(name, tuple(self.context.get_tensor_shape(name)), self._dtype(name)) for name in self._outputs
        ]
        self._launch = self._capture(images) if self._options.cuda_graph else self._enqueue
        self._shape = images.shape

    def _choose_profile(self, shape: Shape) -> None:
        """The profile that takes this shape and whose optimum is nearest to it."""
        fitting = {}
        for index in self._profiles():
            low, best, high = self._profile_shapes(index)
            if len(shape) == len(low) and all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
                fitting[index] = abs(best[0] - shape[0])
        if not fitting:
            raise self._refusal(shape)
        chosen = min(fitting, key=fitting.__getitem__)
        if chosen != self._profile:
            if not self.context.set_optimization_profile_async(chosen, int(self._stream)):
                raise UserError(
                    f"TensorRT does not take profile {chosen} of {self._path}: {_last(self._logger.errors)}"
                )
            self._profile = chosen

    def _refusal(self, shape: Shape) -> UserError:
        low, high = self.batches
        sizes = list(self._profile_shapes(0)[0][1:])
        takes = f"batches of {low} to {high}" if low < high else f"a batch of {low}"
        return UserError(
            f"{self._path} can't run an input of {list(shape)}; it takes {takes} of {sizes}. "
            "Build it with a wider profile (profiles: [{min: 1, opt: 1, max: N}])."
        )

    def _pair(self, name: str, shape: Shape, dtype: np.dtype[Any]) -> NDArray[Any]:
        """The pinned array of a tensor, grown where it is too small, its address told to the context."""
        size = int(np.prod(shape)) * dtype.itemsize
        pair = self._pairs.get(name)
        if pair is not None and pair.size_bytes < size:
            self._pairs.pop(name).free()
            pair = None
        if pair is None:
            pair = self._pairs[name] = cuda.Pair(size)
        self.context.set_tensor_address(name, pair.device)
        return pair.array(shape, dtype)

    def _enqueue(self) -> None:
        self._pairs[self.input_name].to_device(self._host_input.nbytes, self._stream)
        if not self.context.execute_async_v3(int(self._stream)):
            raise UserError(f"TensorRT can't run {self._path}: {_last(self._logger.errors)}")
        for name, host in zip(self._outputs, self._host_outputs, strict=True):
            self._pairs[name].to_host(host.nbytes, self._stream)

    def _capture(self, images: NDArray[Any]) -> Callable[[], None]:
        """Copies and kernels of this shape as one graph; a change of shape drops it, as TensorRT asks."""
        # TensorRT may allocate and copy in the first run of a shape, which a graph must not hold.
        np.copyto(self._host_input, images, casting="no")
        self._enqueue()
        cuda.call(self._cudart.cudaStreamSynchronize, self._stream)
        mode = self._cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        cuda.call(self._cudart.cudaStreamBeginCapture, self._stream, mode)
        self._enqueue()
        recorded = cuda.call(self._cudart.cudaStreamEndCapture, self._stream)
        self._graph = cuda.call(self._cudart.cudaGraphInstantiate, recorded, 0)
        cuda.call(self._cudart.cudaGraphDestroy, recorded)
        return lambda: cuda.call(self._cudart.cudaGraphLaunch, self._graph, self._stream)

    def _drop_graph(self) -> None:
        if self._graph is not None:
            cuda.call(self._cudart.cudaGraphExecDestroy, self._graph)
            self._graph = None

    def _refit(self, engine: Any, weights: Path) -> None:
        trt = self._trt
        refitter = trt.Refitter(engine, self._logger)
        parser = trt.OnnxParserRefitter(refitter, self._logger)
        if not parser.refit_from_file(str(weights)) or not refitter.refit_cuda_engine():
            raise UserError(
                f"TensorRT {trt.__version__} can't put the weights of {weights} into {self._path}: "
                f"{_last(self._logger.errors)}"
            )


def open_plan(folder: Path, manifest: Manifest, options: Options, weights: Path | None) -> TensorRTSession:
    """Open a built plan; where this machine is not the one that it was built on, say what differs.

    Raises UserError with the differences where TensorRT does not open it.
    """
    import tensorrt as trt

    here = machine.facts(trt.__version__)
    differs = machine.differences(manifest.details.get("machine", {}), here)
    try:
        session = TensorRTSession(folder / manifest.model, options, weights)
    except UserError as error:
        if not differs:
            raise
        raise UserError(
            f"{error} It was built for another machine ({'; '.join(differs)}): build it here from the ONNX file."
        ) from None
    session.built = {"operators": manifest.details["operators"], "size_bytes": manifest.size_bytes}
    if differs:
        events.warn(
            f"{folder / manifest.model} was built for another machine ({'; '.join(differs)}); it may run slower than "
            "one that is built here."
        )
    return session


def _last(errors: list[str]) -> str:
    """TensorRT's last error in one sentence."""
    return (" ".join(errors[-1].split()).rstrip(".") if errors else "it gave no reason") + "."
