"""Orders the stages of a recipe and skips what is done; nothing else."""

from __future__ import annotations

import difflib
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from kdeploy import artifacts, events, runlock
from kdeploy import recipe as recipes
from kdeploy.errors import UserError
from kdeploy.provenance import RECORD, RunRecord, StageRecord
from kdeploy.recipe.loading import read_yaml
from kdeploy.recipe.networks import deployed, networks
from kdeploy.recipe.schema import INDIFFERENT, EngineSpec, Recipe, Spec, TrainSpec
from kdeploy.stages import precisions, train
from kdeploy.stages.base import Run, Stage
from kdeploy.stages.bench import Bench
from kdeploy.stages.bundle import Bundle
from kdeploy.stages.data import Data
from kdeploy.stages.engines import BASELINE, BuildEngine
from kdeploy.stages.epochs import Epochs
from kdeploy.stages.export import Export
from kdeploy.stages.gates import Gates
from kdeploy.stages.quantize import Quantize
from kdeploy.stages.report import Report

if TYPE_CHECKING:
    from kdeploy.training.processes import Processes

RECIPE = "recipe.yaml"
_OURS = (RECIPE, runlock.LOCK)
"""What a run that was killed as it began may have left."""


def training(recipe: Recipe) -> list[Stage]:
    """The stages that leave trained networks: what `kdeploy distill` does."""
    return [Data(), *train.plan(recipe)]


def compilation(recipe: Recipe) -> list[Stage]:
    """The stages from trained networks to engines: what `kdeploy export` does with a run."""
    exports: list[Stage] = [Export(role) for role in (*_teacher(recipe), *deployed(recipe))]
    lowered = precisions.made_of_float32(recipe.engines)
    quantised = [Quantize(role, label, asked) for role in deployed(recipe) for label, asked in lowered.items()]
    return [*exports, *quantised, *engines(recipe)]


def engines(recipe: Recipe) -> list[BuildEngine]:
    """The rows of the table, teacher first: each network in torch, the teacher in ONNX Runtime, the student's engines.

    The teacher in ONNX Runtime is there so that what distillation gained and what the runtime gained are
    not mixed up. Peers of the student come in torch only.
    """
    rows, peers = [], [BuildEngine(role, BASELINE) for role in recipe.peers]
    for network in networks(recipe):
        if network.row:
            rows.append(BuildEngine(network.role, BASELINE))
        if network.role == "teacher":
            rows.append(BuildEngine("teacher", EngineSpec()))
    built = [BuildEngine(role, engine) for role in deployed(recipe) for engine in recipe.engines]
    return [*rows, *built, *peers]


def measuring(recipe: Recipe) -> list[Stage]:
    """The stages that measure, judge, pack and show."""
    return [
        *(Epochs(network.role) for network in networks(recipe) if network.train is not None),
        *(Bench(engine) for engine in engines(recipe)),
        Gates(),
        Bundle(),
        Report(),
    ]


def plan(recipe: Recipe) -> list[Stage]:
    """All stages of a recipe, in order."""
    return [*training(recipe), *compilation(recipe), *measuring(recipe)]


def _teacher(recipe: Recipe) -> tuple[str, ...]:
    """The role of the teacher, where there is one."""
    return () if recipe.teacher is None else ("teacher",)


def open_run(
    recipe: Recipe, folder: Path, *, device: str = "auto", fresh: bool = False, processes: Processes | None = None
) -> Run:
    """Open the run folder of a recipe, new or with what is done already.

    A folder that holds a run of another recipe is a UserError that shows the difference; `fresh` removes
    the old run first. A folder that holds something else is never touched.
    """
    check_folder(recipe, folder, fresh=fresh)
    with runlock.held(folder):
        if fresh and (folder / RECORD).is_file():
            _empty(folder)
        text = recipes.dump(recipe)
        if not (folder / RECIPE).is_file() or (folder / RECIPE).read_text(encoding="utf-8") != text:
            artifacts.write_text(folder / RECIPE, text)
        if (folder / RECORD).is_file():
            return Run(recipe, folder, RunRecord.read(folder), device, processes)
        record = RunRecord.new(recipe.name, recipe.seed)
        record.write(folder)
        return Run(recipe, folder, record, device, processes)


def check_folder(recipe: Recipe, folder: Path, *, fresh: bool = False) -> None:
    """Raise a UserError where `open_run` would; nothing is touched."""
    if (folder / RECORD).is_file():
        RunRecord.read(folder)  # a run.json of something else is no reason to remove anything
        if not fresh:
            _require_same(folder, recipe)
    elif folder.exists() and (not folder.is_dir() or any(path.name not in _OURS for path in folder.iterdir())):
        raise UserError(f"{folder} is there already and is not a run. Choose another place with --out DIR.")


def _empty(folder: Path) -> None:
    """Remove what lies in the folder but our lock; the folder itself may be a link, or the current one."""
    for path in folder.iterdir():
        if path.name == runlock.LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def reopen(folder: Path, *, device: str = "auto") -> Run:
    """Open a run folder with the recipe that it was made from."""
    record = RunRecord.read(folder)
    return Run(recipes.load(str(folder / RECIPE)), folder, record, device)


def execute(run: Run, stages: Sequence[Stage], siblings: Sequence[Path] = ()) -> None:
    """Run the stages in order; one whose inputs have not changed is skipped.

    siblings: run folders, other seeds of the same recipe, whose outputs are taken over where the inputs are
    the same, so that one teacher serves all seeds. UserError where another process is at work in the folder.
    """
    with runlock.held(run.folder):
        artifacts.remove_temporaries(run.folder)
        run.record = RunRecord.read(run.folder)  # what another process has done since it was opened
        joint = 1 + max((at for at, stage in enumerate(stages) if isinstance(stage, train.Train)), default=-1)
        _execute(run, stages[:joint], siblings)
        run.dismiss()
        _execute(run, stages[joint:], siblings)


def take_part(recipe: Recipe, folder: Path, processes: Processes) -> None:
    """Train with the first process, which executes the stages of this recipe in this folder; nothing is written."""
    run = Run(recipe, folder, RunRecord.new(recipe.name, recipe.seed), processes=processes)
    train.take_part(run, train.plan(recipe))


def _execute(run: Run, stages: Sequence[Stage], siblings: Sequence[Path]) -> None:
    for stage in stages:
        inputs = dict(stage.inputs(run))
        key = artifacts.sha256_json(inputs)
        if run.record.finished(stage.name, key, run.folder):
            events.say(f"{stage.name}: done before")
            continue
        # A measurement is made anew for each seed: copied, it would look like an exact one.
        if not isinstance(stage, Bench) and _take_over(run, stage.name, key, siblings):
            continue
        started = time.monotonic()
        outputs = list(stage.run(run))
        run.record.enter(stage.name, inputs, outputs, run.folder, started)


_NO_NETWORK_HANGS_ON = ("about", "bench", "gates")
"""Sections of a recipe that may change while its run goes on: the stages that read them are done again."""


def _require_same(folder: Path, recipe: Recipe) -> None:
    """What a recipe says about itself, how engines are measured and which gates they are to hold may change, and a
    newer kdeploy may know more fields than the run did."""
    content, _ = read_yaml(folder / RECIPE)
    try:
        begun = Recipe.model_validate(content)
        old, new = recipes.dump(begun), recipes.dump(_with_what_may_change(recipe, begun))
    except ValidationError:
        old, new = (folder / RECIPE).read_text(encoding="utf-8"), recipes.dump(recipe)
    if old == new:
        return
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), "the run", "this recipe", lineterm="", n=1)
    raise UserError(
        f"{folder} holds a run of another recipe:\n"
        + "\n".join(line for line in lines if not line.startswith("@@"))
        + "\nType --fresh to remove that run and start again, or --out DIR to keep it."
    )


def _with_what_may_change(recipe: Recipe, begun: Recipe) -> Recipe:
    """This recipe, with what need not be the same when its run goes on as it was when that was begun."""
    settled: Recipe = _settled(recipe, begun)
    return settled.model_copy(update={name: getattr(begun, name) for name in _NO_NETWORK_HANGS_ON})


def _settled(part: Any, begun: Any) -> Any:
    """In every training of a part of a recipe: how often it is saved may change, and one that stops at a NaN may be
    told to skip it."""
    if isinstance(part, tuple) and isinstance(begun, tuple) and len(part) == len(begun):
        return tuple(_settled(*pair) for pair in zip(part, begun, strict=True))
    if not isinstance(part, Spec) or type(part) is not type(begun):
        return part
    same = {name: _settled(getattr(part, name), getattr(begun, name)) for name in type(part).model_fields}
    if isinstance(part, TrainSpec) and isinstance(begun, TrainSpec):
        same |= {name: getattr(begun, name) for name in INDIFFERENT}
        if (begun.nonfinite, part.nonfinite) == ("stop", "skip"):
            same["nonfinite"] = "stop"
    return part.model_copy(update=same)


def _take_over(run: Run, stage: str, key: str, siblings: Sequence[Path]) -> bool:
    """Link the outputs of a sibling's finished stage into this run; whether there was one."""
    for sibling in siblings:
        if sibling == run.folder or not (sibling / RECORD).is_file():
            continue
        record = RunRecord.read(sibling)
        if not record.finished(stage, key, sibling):
            continue
        for name in record.stages[stage].outputs:
            _link(sibling / name, run.folder / name)
        run.record.stages[stage] = StageRecord(**record.stages[stage].model_dump())
        run.record.write(run.folder)
        events.say(f"{stage}: taken over from {sibling}")
        return True
    return False


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        with artifacts.atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
