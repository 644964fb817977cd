"""The sections behind training: export, engines, measurement, gates and the bundle."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from kdeploy.recipe.schema.base import Positive, Spec


class ExportSpec(Spec):
    """Torch to ONNX."""

    opset: Annotated[int, Field(ge=13, le=23)] = Field(
        18, description="Written in; below 18 the graph is written in 18 and lowered."
    )
    preprocess: Literal["in-graph", "outside"] = Field(
        "in-graph",
        description="in-graph: raw uint8 NHWC in, probabilities out; outside: normalised float32 NCHW, logits.",
    )
    size: Literal["fixed", "open", "resize"] = Field(
        "fixed",
        description="The graph's height and width; open: any that the network can run at; resize: any, and the graph "
        "resizes images to the network's own, with the filter of training.",
    )

    @model_validator(mode="after")
    def _resizes_raw_images(self) -> ExportSpec:
        if self.size == "resize" and self.preprocess != "in-graph":
            raise ValueError("size: resize is for raw images: preprocess must be in-graph")
        if self.size == "resize" and self.opset < 18:
            raise ValueError("size: resize needs opset 18, whose Resize is antialiased")
        return self


class CalibrationSpec(Spec):
    """Images on which activation ranges are measured: training images, or, where none are opened, synthesised ones."""

    samples: Positive = 256
    method: Literal["minmax", "percentile", "entropy"] = "minmax"


class EngineSpec(Spec):
    """One engine to build from the student: a runtime and a precision."""

    engine: str = "onnxruntime"
    precision: Literal["float32", "int8"] = "float32"
    scheme: Literal["auto", "x86-vnni", "x86-avx2", "arm64"] = Field(
        "auto", description="int8 only: how the target quantises best; auto: from this machine's instruction set."
    )
    calibration: CalibrationSpec = Field(default_factory=lambda: CalibrationSpec())

    @property
    def name(self) -> str:
        """The name of the engine's row and folder."""
        return f"{self.engine}-{self.precision}"


class BenchSpec(Spec):
    """How long and how to measure."""

    batch: tuple[Positive, ...] = (1,)
    threads: Positive = 1
    min_time_s: float = Field(10.0, gt=0)
    min_count: Positive = Field(662, description="Fewest single calls at batch 1; p99 wants 662.")

    @field_validator("batch")
    @classmethod
    def _has_batch_one(cls, batch: tuple[int, ...]) -> tuple[int, ...]:
        if 1 not in batch:
            raise ValueError("batch must contain 1, the row every table shows")
        return batch


class GatesSpec(Spec):
    """Bounds that must hold; one that does not gives exit status 3, after everything else is done."""

    int8_drop_points: float | None = Field(1.0, ge=0, description="int8 may lose this much accuracy against float32.")
    student_gain_points: float | None = Field(None, description="Distilled must beat alone by this many points.")


class BundleSpec(Spec):
    """What is shipped."""

    engine: str = Field("auto", description="auto: the fastest engine that holds the gates; or an engine's row name.")
    samples: int = Field(3, ge=0, description="Held-out images left beside the bundle.")
