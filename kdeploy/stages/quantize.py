"""float32 ONNX to int8 ONNX, calibrated on training images, or where none are opened on synthesised ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kdeploy import artifacts, events, parity
from kdeploy.engines.base import Preprocessing
from kdeploy.engines.onnxruntime import OnnxRuntime
from kdeploy.machine import instruction_sets
from kdeploy.recipe.schema import EngineSpec
from kdeploy.sources import Images
from kdeploy.stages import export, shown
from kdeploy.stages.base import Run, spec

INT8 = "int8"
_BATCH = 250


@dataclass(frozen=True)
class Quantize:
    """Writes `export/<role>.int8.onnx` with its parity record."""

    role: str
    engine: EngineSpec

    @property
    def name(self) -> str:
        return f"quantize/{self.role}-{self.engine.name}"

    def inputs(self, run: Run) -> Mapping[str, Any]:
        return {
            "calibration": spec(self.engine.calibration),
            "scheme": self.engine.scheme if self.engine.scheme != "auto" else sorted(instruction_sets()),
            "seed": run.recipe.seed,
            "model": artifacts.sha256_file(export.onnx_file(run.folder, self.role)),
            "images": {**run.outputs_of("data"), **shown.hashes(run)},
        }

    def run(self, run: Run) -> Sequence[Path]:
        from kdeploy.quantize.calibration import pick
        from kdeploy.quantize.schemes import choose_scheme
        from kdeploy.quantize.static import quantize

        source = export.onnx_file(run.folder, self.role)
        target = export.onnx_file(run.folder, self.role, INT8)
        preprocessing = export.preprocessing_of(
            artifacts.read_json(run.folder / "networks" / self.role / f"{self.role}.json"),
            in_graph=run.recipe.export.preprocess == "in-graph",
        )
        scheme = choose_scheme(self.engine.scheme, instruction_sets())
        train = shown.splits(run).train
        chosen = pick(train.labels, self.engine.calibration.samples, run.recipe.seed)
        with events.task(f"quantize {self.role} ({scheme.name})"):
            made = quantize(
                source,
                target,
                scheme=scheme,
                images=export.model_inputs(train.images[chosen], preprocessing),
                method=self.engine.calibration.method,
            )
            compared, measured = _compare(source, target, run, preprocessing)
        record = compared.write(target)
        card = target.with_suffix(".json")
        artifacts.write_json(
            card,
            {
                "schema_version": 1,
                "scheme": scheme.name,
                "opset": made.opset,
                "calibration": {
                    "samples": len(chosen),
                    "method": self.engine.calibration.method,
                    "split": shown.calibration_split(run),
                },
                **measured,
            },
        )
        return [target, record, card]


def _compare(
    source: Path, target: Path, run: Run, preprocessing: Preprocessing
) -> tuple[parity.Parity, dict[str, Any]]:
    """Parity of int8 with float32, and what the gate is decided on.

    That is the accuracy of both on validation. Synthesised images have no labels: there it is the share on which int8
    names the class that float32 names.
    """
    output: Literal["probabilities", "logits"] = "probabilities" if preprocessing.in_graph else "logits"
    validation = shown.splits(run).validation
    with (
        OnnxRuntime().open_file(source, threads=1) as reference,
        OnnxRuntime().open_file(target, threads=1) as candidate,
    ):
        runs = {"float32": reference.run, INT8: candidate.run}
        images = export.parity_images(run)
        compared = parity.compare(
            runs["float32"],
            runs[INT8],
            export.model_inputs(images, preprocessing),
            batches=export.batches_of(images),
            reference_output=output,
            candidate_output=output,
            tolerance=None,
        )
        said = {name: _predictions(run_, validation.images, preprocessing) for name, run_ in runs.items()}
    compared = compared.model_copy(update={"images": shown.what(run)})
    if not run.labelled:
        same = float((said["float32"] == said[INT8]).mean())
        return compared, {"agreement": {"samples": len(validation), "images": shown.what(run), "share": same}}
    accuracies = {name: float((classes == validation.labels).mean()) for name, classes in said.items()}
    return compared, {"validation": {"samples": len(validation), **accuracies}}


def _predictions(
    run: Callable[[NDArray[Any]], NDArray[np.float32]], images: Images, preprocessing: Preprocessing
) -> NDArray[np.int64]:
    batches = range(0, len(images), _BATCH)
    inputs = (export.model_inputs(images[begin : begin + _BATCH], preprocessing) for begin in batches)
    return np.concatenate([run(batch).argmax(axis=1) for batch in inputs])
