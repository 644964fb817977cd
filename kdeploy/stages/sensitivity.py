"""Which layers of a run's student int8 hurts, as a table and a plot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdeploy import artifacts
from kdeploy.errors import UserError
from kdeploy.recipe.networks import deployed
from kdeploy.recipe.schema import EngineSpec
from kdeploy.stages import export, quantize, shown
from kdeploy.stages.base import Run
from kdeploy.stages.precisions import INTEGER


@dataclass(frozen=True)
class Sensitivity:
    """What each layer costs, and where that was written."""

    content: dict[str, Any]
    """As in the JSON file."""
    data: Path
    plot: Path


def measure(run: Run, role: str, samples: int) -> Sensitivity:
    """Quantise each layer of a role alone, and write `sensitivity/<role>.<scheme>.json` and `.svg`.

    Scheme and calibration are those of the recipe's first int8 or mixed engine, else the defaults. samples: validation
    images to measure on. Raises UserError for a role that is not exported, or not yet.
    """
    from kdeploy.report.charts.sensitivity import draw
    from kdeploy.report.charts.standalone import standalone
    from kdeploy.report.data import LayerCost

    if role not in deployed(run.recipe):
        raise UserError(f"{role!r} is not compiled in this run; choose from: {', '.join(deployed(run.recipe))}.")
    if not export.onnx_file(run.folder, role).is_file():
        raise UserError(f"{run.folder} has no ONNX file of {role} yet. Type: kdeploy export {run.folder}")
    integer = [engine for engine in run.recipe.engines if engine.precision in INTEGER]
    asked = integer[0] if integer else EngineSpec(precision="int8")
    calibrated = quantize.calibrate(run, role, asked)
    costs = [cost.to_json() for cost in quantize.sensitivity(run, role, calibrated, samples)]
    scheme = calibrated.graph.scheme.name
    content = {
        "schema_version": 1,
        "run": str(run.folder),
        "role": role,
        "scheme": scheme,
        "calibration": asked.calibration.model_dump(mode="json"),
        "images": {
            "samples": min(samples, len(shown.splits(run).validation)),
            "split": "validation",
            "what": shown.what(run),
        },
        "layers": costs,
    }
    target = run.folder / "sensitivity" / f"{role}.{scheme}.json"
    artifacts.write_json(target, content)
    plot = target.with_suffix(".svg")
    drawn = draw(
        "sensitivity",
        [LayerCost.model_validate(cost) for cost in costs],
        title=f"{role}, {scheme}: one layer at a time in int8",
    )
    artifacts.write_text(plot, standalone(drawn))
    return Sensitivity(content, target, plot)
