"""The sections behind training: export, engines, measurement, gates and the bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from kdeploy.recipe.schema.base import Positive, Spec

BUDGET_POINTS = 0.3
"""What plain ResNets lose by int8 at most, in the published tables: more is a network that needs float32 somewhere."""


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
    method: Literal["minmax", "percentile", "entropy", "mse"] = Field(
        "minmax", description="How a range is taken from what was seen; mse: the least squared error of rounding."
    )
    bias_correction: bool = Field(
        False, description="Shift each bias until its layer's mean output is that of float32 (Nagel et al., 2019)."
    )


class EngineSpec(Spec):
    """One engine to build from the student: a runtime and a precision."""

    engine: str = "onnxruntime"
    precision: Literal["float32", "bfloat16", "float16", "int8", "mixed"] = Field(
        "float32",
        description="bfloat16: the float32 graph, computed in bfloat16 by an engine that can; mixed: int8, and float32 "
        "in the layers that lose most by int8.",
    )
    scheme: Literal["auto", "x86-vnni", "x86-avx2", "arm64", "tensorrt", "qnn"] = Field(
        "auto",
        description="int8 and mixed: how the target quantises best; auto: from this machine's instruction set.",
    )
    calibration: CalibrationSpec = Field(default_factory=lambda: CalibrationSpec())
    keep_float32: tuple[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]*$")], ...] = Field(
        (), description="float16: operators, such as Softmax, that stay float32."
    )
    budget_points: float = Field(
        BUDGET_POINTS, ge=0, description="mixed: may lose this much accuracy on validation against float32."
    )
    options: dict[str, Any] = Field(default_factory=dict, description="What else is asked of the runtime.")
    variant: str = Field(
        "",
        pattern=r"^([a-z0-9]+)?$",
        description="A word that tells engines of one runtime and precision with different options apart.",
    )

    @model_validator(mode="after")
    def _options_do_something(self) -> EngineSpec:
        if self.keep_float32 and self.precision != "float16":
            raise ValueError(f"keep_float32 is for the precision float16, not for {self.precision}")
        if self.budget_points != BUDGET_POINTS and self.precision != "mixed":
            raise ValueError(f"budget_points is for the precision mixed, not for {self.precision}")
        return self

    @property
    def name(self) -> str:
        """The name of the engine's row and folder."""
        precision = "" if self.engine == "pytorch" else self.precision
        return "-".join(filter(None, (self.engine, precision, self.variant)))

    @property
    def decides(self) -> dict[str, str]:
        """What its file hangs on beside the precision, by option, in words that can stand in a file name."""
        if self.precision == "float16":
            return {"keep_float32": "-".join(("keep", *self.keep_float32)) if self.keep_float32 else ""}
        if self.precision not in ("int8", "mixed"):
            return {}
        calibration = self.calibration
        decides = {
            "scheme": self.scheme,
            "method": calibration.method,
            "samples": str(calibration.samples),
            "bias_correction": "bias-corrected" if calibration.bias_correction else "",
        }
        if self.precision == "mixed":
            decides["budget_points"] = f"{self.budget_points:g}".replace(".", "_") + "-points"
        return decides


def told_apart(alike: Sequence[Mapping[str, str]]) -> list[str]:
    """For options of several things of one kind, what tells each from the others: "-entropy-512", or nothing."""
    differs = [option for option in (alike[0] if alike else ()) if len({one[option] for one in alike}) > 1]
    return ["".join(f"-{one[option]}" for option in differs if one[option]) for one in alike]


class BenchSpec(Spec):
    """How long and how to measure."""

    batch: tuple[Positive, ...] = (1,)
    threads: Positive = 1
    min_time_s: float = Field(10.0, gt=0)
    min_count: Positive = Field(662, description="Fewest single calls at batch 1; p99 wants 662.")
    layers: bool = Field(False, description="Profile each engine by layer, too, by its runtime's own profiler.")

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
