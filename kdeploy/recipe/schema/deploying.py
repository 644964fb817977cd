"""The sections behind training: export, engines, measurement, gates and the bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from kdeploy.recipe.schema.base import Positive, Spec


class ExportSpec(Spec):
    """Torch to ONNX."""

    opset: Annotated[int, Field(ge=18, le=23)] = 18
    preprocess: Literal["in-graph", "outside"] = Field(
        "in-graph",
        description="in-graph: raw uint8 NHWC in, probabilities out; outside: normalised float32 NCHW, logits.",
    )


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
        "float32", description="mixed: int8, and float32 in the layers that lose most by int8."
    )
    scheme: Literal["auto", "x86-vnni", "x86-avx2", "arm64", "tensorrt", "qnn"] = Field(
        "auto",
        description="int8 and mixed: how the target quantises best; auto: from this machine's instruction set.",
    )
    calibration: CalibrationSpec = Field(default_factory=lambda: CalibrationSpec())
    keep_float32: tuple[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]*$")], ...] = Field(
        (), description="float16 and bfloat16: operators, such as Softmax, that stay float32."
    )
    budget_points: float = Field(
        0.3, ge=0, description="mixed: may lose this much accuracy on validation against float32."
    )

    @model_validator(mode="after")
    def _options_do_something(self) -> EngineSpec:
        halves = ("float16", "bfloat16")
        if self.keep_float32 and self.precision not in halves:
            raise ValueError(f"keep_float32 is for float16 and bfloat16, not for {self.precision}")
        if self.budget_points != EngineSpec.model_fields["budget_points"].default and self.precision != "mixed":
            raise ValueError(f"budget_points is for the precision mixed, not for {self.precision}")
        return self

    @property
    def kind(self) -> str:
        """Runtime and precision; the engine's name, unless the recipe lists another of the same kind."""
        return f"{self.engine}-{self.precision}"

    @property
    def decides(self) -> dict[str, str]:
        """What its file hangs on beside the precision, by option, in words that can stand in a file name."""
        if self.precision in ("float16", "bfloat16"):
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


def engine_names(engines: Sequence[EngineSpec]) -> list[str]:
    """The names of the engines' rows and folders, in their order: onnxruntime-int8, or where there are two of a kind,
    onnxruntime-int8-minmax and onnxruntime-int8-entropy."""
    names = {}
    for kind in dict.fromkeys(engine.kind for engine in engines):
        numbers = [number for number, engine in enumerate(engines) if engine.kind == kind]
        suffixes = told_apart([engines[number].decides for number in numbers])
        names.update({number: kind + suffix for number, suffix in zip(numbers, suffixes, strict=True)})
    return [names[number] for number in range(len(engines))]


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
