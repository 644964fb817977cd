"""What can be asked of TensorRT: checked without TensorRT, and the same for both ways to build."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kdeploy.engines import _options
from kdeploy.engines.base import images_at_once


class Profile(BaseModel):
    """The batch sizes that an engine takes: from `min` to `max`, tuned for `opt`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: int = Field(default=1, ge=1)
    opt: int = Field(default=1, ge=1)
    max: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _ascending(self) -> Profile:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"a profile needs min <= opt <= max, not {self.min}, {self.opt}, {self.max}")
        return self


class Options(_options.Options):
    """Options of an engine `tensorrt`, as a recipe writes them. What is None is left to TensorRT."""

    builder: Literal["auto", "python", "trtexec"] = "auto"
    """auto: the Python API where it is installed, else `trtexec`."""
    profiles: list[Profile] | None = Field(default=None, min_length=1)
    """For a graph with an open batch. None: tuned for one image, and up to as many as accuracy is measured with."""
    builder_optimization_level: int | None = Field(default=None, ge=0, le=5)
    workspace_mib: int | None = Field(default=None, ge=1)
    timing_cache: bool = True
    """Keep what the builder has timed, for the next build on the same GPU with the same version."""
    version_compatible: bool = False
    """The plan can be opened by later versions of the same major version."""
    exclude_lean_runtime: bool = False
    hardware_compatibility: Literal["none", "ampere+", "same-compute-capability"] = "none"
    dla_core: int | None = Field(default=None, ge=0)
    gpu_fallback: bool = True
    """With a DLA core: layers that it cannot run go to the GPU, and are counted. Off: they are an error."""
    refit: bool = False
    strip_weights: bool = False
    """The plan holds no weights; they are put back from the ONNX file, which lies beside it, when it is opened."""
    precision_share: float = Field(default=1.0, gt=0, le=1)
    """Of the convolutions and matrix multiplications, how many must be in the precision that the graph gives them."""
    cuda_graph: bool = False
    """Record the launches of one shape as a CUDA graph and launch them together."""

    @model_validator(mode="after")
    def _together(self) -> Options:
        if self.exclude_lean_runtime and not self.version_compatible:
            raise ValueError("exclude_lean_runtime says something only with version_compatible: true")
        if self.dla_core is not None and self.hardware_compatibility != "none":
            raise ValueError("a DLA core and hardware_compatibility exclude each other: a DLA belongs to one board")
        return self


def profiles_for(options: Options, height: int, width: int) -> tuple[Profile, ...]:
    """The profiles asked for, else one of up to as many images as are predicted together."""
    if options.profiles is not None:
        return tuple(options.profiles)
    return (Profile(max=images_at_once(height, width)),)


def parse(given: Mapping[str, Any]) -> Options:
    """Options from a recipe's mapping. Raises UserError that names the option and what it takes."""
    return _options.parse(Options, given, "tensorrt")
