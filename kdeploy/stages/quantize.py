"""float32 ONNX to ONNX of lower precision, with its accuracy beside float32's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kdeploy import artifacts, events, parity
from kdeploy.engines.base import Preprocessing
from kdeploy.engines.onnxruntime import OnnxRuntime
from kdeploy.errors import UserError
from kdeploy.machine import instruction_sets
from kdeploy.recipe.schema import EngineSpec
from kdeploy.stages import export, precisions, shown
from kdeploy.stages.base import Run, spec

if TYPE_CHECKING:
    from onnx import ModelProto

    from kdeploy.quantize.sensitivity import LayerCost
    from kdeploy.quantize.static import Calibrated

SENSITIVITY_IMAGES = 512
"""Of validation, on which layers are told apart: the divergence of outputs needs few."""


@dataclass(frozen=True)
class Quantize:
    """Writes `export/<role>.<label>.onnx` with its parity record and a card: `student.int8-x86-vnni.onnx`, ..."""

    role: str
    label: str
    asked: EngineSpec

    @property
    def name(self) -> str:
        return f"quantize/{self.role}-{self.label}"

    def inputs(self, run: Run) -> Mapping[str, Any]:
        asked = spec(self.asked)
        return {
            "label": self.label,
            **{key: asked[key] for key in ("precision", "calibration", "keep_float32", "budget_points")},
            "rows": rows_of(run, self.role, self.label),
            "seed": run.recipe.seed,
            "model": artifacts.sha256_file(export.onnx_file(run.folder, self.role)),
            "images": {**run.outputs_of("data"), **shown.hashes(run)},
        }

    def run(self, run: Run) -> Sequence[Path]:
        target = export.onnx_file(run.folder, self.role, self.label)
        with events.task(f"quantize {self.role} ({self.label})"):
            made = self._float16(run, target) if self.asked.precision == "float16" else self._int8(run, target)
            compared, measured = _compare(run, self.role, target, self.asked.precision)
        record = compared.write(target)
        card = target.with_suffix(".json")
        rows = rows_of(run, self.role, self.label)
        known = {"schema_version": precisions.CARD_VERSION, "precision": self.asked.precision, "rows": rows}
        artifacts.write_json(card, {**known, **made, **measured})
        return [target, record, card]

    def _float16(self, run: Run, target: Path) -> dict[str, Any]:
        from kdeploy.quantize.half import to_float16

        made = to_float16(export.onnx_file(run.folder, self.role), target, keep_float32=self.asked.keep_float32)
        return {"opset": made.opset, "kept_float32": made.kept_float32}

    def _int8(self, run: Run, target: Path) -> dict[str, Any]:
        """Int8, or mixed: what was made, for the card."""
        from kdeploy.quantize.static import write

        calibrated = calibrate(run, self.role, self.asked)
        found: dict[str, Any] = {}
        model = None
        if self.asked.precision == "mixed":
            model, found = _mixed(run, self.role, self.asked, calibrated)
        made = write(calibrated.int8() if model is None else model, target, calibrated.graph.scheme)
        calibration = spec(self.asked.calibration)
        return {
            "scheme": made.scheme.name,
            "opset": made.opset,
            "calibration": {**calibration, "samples": len(calibrated.images), "split": shown.calibration_split(run)},
            **found,
        }


def rows_of(run: Run, role: str, label: str) -> list[str]:
    """The rows of the table whose engines are built from a file."""
    engines = run.recipe.engines
    return [f"{role}-{engine.name}" for engine in engines if precisions.label(engine, engines) == label]


def calibrate(run: Run, role: str, asked: EngineSpec) -> Calibrated:
    """A role's float32 graph with the ranges of its activations on training images.

    Raises UserError where the images that were picked show a single class, and as `quantize.static.calibrate` does.
    """
    from kdeploy.quantize import static
    from kdeploy.quantize.calibration import check_classes, pick
    from kdeploy.quantize.schemes import choose_scheme

    train = shown.splits(run).train
    chosen = pick(train.labels, asked.calibration.samples, run.recipe.seed)
    if run.labelled:
        check_classes(train.labels[chosen], run.splits.classes)
    return static.calibrate(
        export.onnx_file(run.folder, role),
        scheme=choose_scheme(asked.scheme, instruction_sets()),
        images=export.model_inputs(train.images[chosen], export.graph_preprocessing(run, role)),
        method=asked.calibration.method,
        bias_correction=asked.calibration.bias_correction,
    )


def output_of(preprocessing: Preprocessing) -> Literal["probabilities", "logits"]:
    """What the graph gives."""
    return "probabilities" if preprocessing.in_graph else "logits"


def sensitivity(run: Run, role: str, calibrated: Calibrated, samples: int = SENSITIVITY_IMAGES) -> list[LayerCost]:
    """What each layer costs on so many validation images. Raises UserError where there are none."""
    from kdeploy.quantize.sensitivity import layer_costs

    preprocessing = export.graph_preprocessing(run, role)
    validation = shown.splits(run).validation
    if not len(validation):
        raise UserError(f"{run.folder} has no validation images to measure the sensitivity of layers on.")
    labels = validation.labels[:samples] if run.labelled else None
    images = export.model_inputs(validation.images[:samples], preprocessing)
    return layer_costs(calibrated, images, labels, output=output_of(preprocessing))


def _mixed(run: Run, role: str, asked: EngineSpec, calibrated: Calibrated) -> tuple[ModelProto, dict[str, Any]]:
    """The mixed graph that holds the budget on validation, and how it was found."""
    from kdeploy.quantize.running import Running
    from kdeploy.quantize.sensitivity import keep_until

    preprocessing, validation = export.graph_preprocessing(run, role), shown.splits(run).validation
    said = export.predicted(Running(calibrated.float32).run, validation.images, preprocessing)
    # Synthesised images have no labels: there the answers of float32 stand for them.
    right = validation.labels if run.labelled else said

    def score(model: ModelProto) -> float:
        return float((export.predicted(Running(model).run, validation.images, preprocessing) == right).mean())

    costs = sensitivity(run, role, calibrated)
    least = float((said == right).mean()) - asked.budget_points / 100
    model, steps = keep_until(calibrated, costs, score, least)
    kept = steps[-1].kept_float32
    why = f"{100 * (steps[-1].score - least):.2f} points above the budget's bound on {len(validation)} images"
    events.decided("float32 layers", f"{len(kept)} of {len(costs)}", why)
    return model, {
        "budget_points": asked.budget_points,
        "kept_float32": kept,
        "steps": [{"kept_float32": len(step.kept_float32), "score": step.score} for step in steps],
        "sensitivity": [cost.to_json() for cost in costs],
    }


def _compare(run: Run, role: str, target: Path, precision: str) -> tuple[parity.Parity, dict[str, Any]]:
    """Parity with float32, and what the gate is decided on.

    That is the accuracy of both on validation. Synthesised images have no labels: there it is the share on which the
    file names the class that float32 names.
    """
    preprocessing = export.graph_preprocessing(run, role)
    output = output_of(preprocessing)
    validation = shown.splits(run).validation
    with (
        OnnxRuntime().open_file(export.onnx_file(run.folder, role), threads=1) as reference,
        OnnxRuntime().open_file(target, threads=1) as candidate,
    ):
        runs = {"float32": reference.run, precision: candidate.run}
        images = export.parity_images(run)
        compared = parity.compare(
            runs["float32"],
            runs[precision],
            export.model_inputs(images, preprocessing),
            batches=export.batches_of(images),
            reference_output=output,
            candidate_output=output,
            tolerance=None,
        )
        said = {name: export.predicted(run_, validation.images, preprocessing) for name, run_ in runs.items()}
    compared = compared.model_copy(update={"images": shown.what(run)})
    if not run.labelled:
        same = float((said["float32"] == said[precision]).mean())
        return compared, {"agreement": {"samples": len(validation), "images": shown.what(run), "share": same}}
    accuracies = {name: float((classes == validation.labels).mean()) for name, classes in said.items()}
    return compared, {"validation": {"samples": len(validation), **accuracies}}
