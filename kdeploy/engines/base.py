"""The one interface of all engines: build from ONNX, open, run, describe."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from kdeploy.engines._options import Options

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


class Session(ABC):
    """An engine opened and ready to run. Use as a context manager."""

    @abstractmethod
    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """One synchronous inference.

        images: uint8 `[B, H, W, C]` where preprocessing is in the graph, else float32 `[B, C, H, W]`,
        normalised. Returns float32 `[B, classes]`; synchronised, so the clock may be read around the call.
        """

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
