"""The one interface of all engines: build from ONNX, open, run, describe."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from kdeploy.engines._options import Options
from kdeploy.errors import UserError

Precision = Literal["float32", "float16", "bfloat16", "int8", "mixed"]
MANIFEST = "manifest.json"
_AT_ONCE = 250


@dataclass(frozen=True)
class Availability:
    """Whether an engine can be used here: its version, or why not and the command that installs it."""

    ok: bool
    version: str | None = None
    reason: str | None = None
    install: str | None = None


def images_at_once(height: int, width: int) -> int:
    """How many images of this size are predicted together: 250 of 32 x 32 pixels, or as many pixels in larger ones.

    Activations grow with both, and a small device has little memory.
    """
    return max(1, min(_AT_ONCE, _AT_ONCE * 32 * 32 // (height * width)))


class Preprocessing(BaseModel):
    """How an image becomes the network's input."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    in_graph: bool
    height: int
    width: int
    channels: Literal[1, 3]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Manifest(BaseModel):
    """What an engine folder holds; written beside the engine as `manifest.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    engine: str
    precision: Precision
    model: str
    """File of the engine, relative to the folder."""
    files: dict[str, str]
    """SHA-256 of each file the engine needs, by name."""
    size_bytes: int
    input_name: str
    input_dtype: Literal["uint8", "float32"]
    output: Literal["probabilities", "logits"]
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    parameters: int | None
    macs: int | None
    """Multiply-accumulates of one image; None: not counted."""
    source: str
    """SHA-256 of the ONNX file (or weights) it was made from."""
    opset: int | None
    scheme: str | None = None
    """int8: the quantisation scheme."""
    options: dict[str, Any] = {}
    """What was asked of the engine beside its precision, as `Engine.options` checks it; the rest is at its defaults."""
    variant: str = ""
    """What the tables call an engine that is there with several options."""
    details: dict[str, Any] = {}
    """Versions, how the outputs compare with the graph's, operators by precision."""


@dataclass(frozen=True)
class LayerTimes:
    """What a runtime's own profiler says of one layer.

    name: the graph's node, where the runtime lets it be known, else the runtime's own name. operator: in the runtime's
    words. precision: as `numpy.dtype.name` spells it, None where it is not told. provider: what computes it. times_us:
    one a call, or one for each `Profile.grouped` calls. fused: further nodes of the graph that it computes.
    """

    name: str
    operator: str
    precision: str | None
    provider: str
    times_us: tuple[float, ...]
    fused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Profile:
    """An engine's time by layer, from its runtime's own profiler."""

    profiler: str
    """Which, with its version."""
    calls: int
    """Inferences that were profiled, after a warm-up."""
    layers: tuple[LayerTimes, ...]
    """In the order in which they are computed."""
    profiled_us: tuple[float, ...]
    """Whole calls, the clock read around each, while the profiler was on. Empty: not to be had of this profiler."""
    plain_us: tuple[float, ...]
    """Whole calls without the profiler: what it costs shows between the two."""
    grouped: int = 1
    """Each of a layer's times is the mean of so many calls; `calls`: the profiler's own median of all."""
    resolution_us: float = 0.0
    """The profiler cuts times off to multiples of this; 0: it does not."""
    notes: tuple[str, ...] = ()
    """What must be known to read it: sentences."""


@dataclass(frozen=True)
class InParts:
    """One inference, and how long its parts took, in nanoseconds."""

    outputs: NDArray[np.float32]
    inference_ns: int
    copies_ns: int | None
    """Into the engine's buffers and out of them; None: not to be told apart from the inference."""


class Session(ABC):
    """An engine opened and ready to run. Use as a context manager."""

    @abstractmethod
    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """One synchronous inference.

        images: uint8 `[B, H, W, C]` where preprocessing is in the graph, else float32 `[B, C, H, W]`,
        normalised. Returns float32 `[B, classes]`; synchronised, so the clock may be read around the call.
        """

    def run_in_parts(self, images: NDArray[Any]) -> InParts:
        """As `run`, on the clock; an engine that knows its copies tells them apart."""
        start = time.perf_counter_ns()
        outputs = self.run(images)
        return InParts(outputs, time.perf_counter_ns() - start, None)

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Version, devices or providers really in use, threads, operators by precision after compilation, bytes."""

    def close(self) -> None:
        """Release the engine."""
        return

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Engine(ABC):
    """A runtime."""

    name: ClassVar[str]
    precisions: ClassVar[frozenset[Precision]] = frozenset(get_args(Precision))
    """The precisions in which it runs networks."""
    highest_opset: ClassVar[int | None] = None
    """The newest ONNX operators that it takes; None: it takes no ONNX."""
    options: ClassVar[type[Options]] = Options
    """What can be asked of it beside a precision; in a manifest's `options`."""

    @abstractmethod
    def available(self) -> Availability:
        """Whether the runtime can be used on this machine. Never raises."""

    @abstractmethod
    def build(self, model: Path, folder: Path, manifest: Manifest) -> Manifest:
        """Compile `model` into `folder`, write the manifest there, and return it as completed.

        `manifest` comes with everything that is known before the build, the precision and options asked for among it;
        files, size and details are filled in.
        """

    @abstractmethod
    def open(self, folder: Path, manifest: Manifest, threads: int) -> Session:
        """Open a built engine with this many threads."""

    def profile(
        self, folder: Path, manifest: Manifest, threads: int, inputs: Sequence[NDArray[Any]], calls: int
    ) -> Profile:
        """Run a built engine so often on the inputs in turn, with its runtime's own profiler on.

        inputs: of one shape, as `Session.run` takes them. A profiler slows what it watches, so this belongs into
        another process than a measurement. Raises what `open` does, and UserError where the engine tells no times by
        layer.
        """
        raise UserError(
            f"{folder} can't be profiled by layer: the engine {self.name} tells no times of its layers. "
            "Profile an engine of onnxruntime, openvino or tensorrt."
        )
