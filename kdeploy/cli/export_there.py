"""`kdeploy export --target`: ONNX files are made here, and the engines on the device that will run them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdeploy import artifacts, events
from kdeploy.cli.elsewhere import Luggage, fetch, require_success
from kdeploy.cli.exporting import export_model
from kdeploy.errors import Unavailable, UserError
from kdeploy.stages import builds
from kdeploy.stages.builds import SUFFIX
from kdeploy.stages.devices import built_on, folder_of
from kdeploy.stages.engines import PYTORCH, BuildEngine
from kdeploy.stages.precisions import INTEGER

if TYPE_CHECKING:
    from kdeploy.cli import options
    from kdeploy.recipe.schema import EngineSpec
    from kdeploy.stages.base import Run
    from kdeploy.stages.model import ModelRun
    from kdeploy.targets.environment import Abilities


def model_for(place: options.Target, source: str, given: Mapping[str, Any]) -> tuple[ModelRun, list[BuildEngine]]:
    """Export one model or ONNX file here, for the device's processor; and the engines to be built there."""
    from kdeploy.targets.environment import abilities

    device = abilities(place)
    if "engine" not in given and "board" not in given:
        has = " or ".join(f"--engine {name}" for name in device.engines if name != PYTORCH)
        raise UserError(f"Say which engine {place.text} is to build: {has or '--engine NAME'}.")
    known = dict(given)
    if "scheme" not in known and "board" not in known and set(INTEGER).intersection(known.get("precision", [])):
        known["scheme"] = _scheme(device)
        events.decided("int8 scheme", known["scheme"], f"the processor of {place.text} has what it is made for")
    run = export_model(source, {**known, "elsewhere": True})
    return run, _usable([BuildEngine(run.recipe.name, row) for row in run.asked.rows], device, place)


def run_for(place: options.Target, folder: Path) -> tuple[Run, list[BuildEngine]]:
    """Have the ONNX files of a run, with int8 for the device's processor; and its engines, to be built there."""
    from kdeploy import pipeline
    from kdeploy.cli.execution import carry_out, require_torch
    from kdeploy.targets.environment import abilities

    require_torch("kdeploy export")
    device = abilities(place)
    run = pipeline.reopen(folder)
    rows = tuple(_for_device(row, device) for row in run.recipe.engines)
    run.recipe = run.recipe.model_copy(update={"engines": rows})
    compilation = pipeline.compilation(run.recipe)
    stages = _usable([stage for stage in compilation if isinstance(stage, BuildEngine)], device, place)
    graphs = [stage for stage in compilation if not isinstance(stage, BuildEngine)]
    carry_out(run, [*pipeline.training(run.recipe), *graphs])
    return run, stages


def build_there(place: options.Target, run: Run, stages: Sequence[BuildEngine]) -> tuple[list[dict[str, Any]], Path]:
    """Build the engines on the device. Returns what is shown of each, and the folder here that they came to."""
    kept = folder_of(run.folder, place.name) / "engines"
    with tempfile.TemporaryDirectory(prefix="kdeploy-plan-") as temporary:
        plan, built = Path(temporary) / f"engines{SUFFIX}", Path(temporary) / "built.json"
        artifacts.write_json(plan, builds.plan(run, stages).model_dump(mode="json"))
        luggage = Luggage()
        luggage.put({plan.name: plan})
        luggage.put({file.name: file for stage in stages for file in _files(stage.source(run))})
        luggage.outputs = {"engines": kept, "built.json": built}
        done = fetch(place, ["export", plan.name, "--out", "engines", "--json", "built.json"], luggage)
        require_success(done, luggage, place)
        found: list[dict[str, Any]] = artifacts.read_json(built)["engines"]
    for folder in built_on(run.folder, place.name):
        if folder.name not in {one["row"] for one in found}:  # of an export before this one
            shutil.rmtree(folder)
    return found, kept


def _files(source: Path) -> list[Path]:
    from kdeploy.engines._onnx_file import weight_files

    return [source, *weight_files(source)]


def _usable(stages: Sequence[BuildEngine], device: Abilities, place: options.Target) -> list[BuildEngine]:
    """Those that the device has a runtime for; what is left out is said. The baseline in torch is built here alone."""
    wanted = [stage for stage in stages if stage.asked.engine != PYTORCH]
    if not wanted:
        raise UserError(f"No engine is asked for but {PYTORCH}'s, which is built here alone: {place.text} builds none.")
    found = [stage for stage in wanted if stage.asked.engine in device.engines]
    missing = {stage.asked.engine for stage in wanted} - set(device.engines)
    for engine in sorted(missing):
        rows = ", ".join(stage.row for stage in wanted if stage.asked.engine == engine)
        events.decided("not built", rows, f"the device has no {engine}")
    if missing and not found:
        raise Unavailable(f"{place.text} has no runtime for {', '.join(sorted(missing))}.{device.remedy(missing)}")
    return found


def _for_device(row: EngineSpec, device: Abilities) -> EngineSpec:
    """`scheme: auto` is the scheme of the processor that it is for, not of the one that it is made on."""
    if row.precision not in INTEGER or row.scheme != "auto":
        return row
    return row.model_copy(update={"scheme": _scheme(device)})


def _scheme(device: Abilities) -> str:
    from kdeploy.quantize.schemes import resolve

    return resolve("auto", device.instruction_sets).name
