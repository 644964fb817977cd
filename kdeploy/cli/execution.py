"""What verbs share that do heavy work: is torch here, is the device, and stages done in a run folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdeploy.errors import UserError, missing_extra

if TYPE_CHECKING:
    from kdeploy.recipe.schema import Recipe
    from kdeploy.stages.base import Run, Stage
    from kdeploy.training.processes import Processes


def require_torch(verb: str) -> None:
    """Raise, with the command that installs it, where torch is not to be had."""
    if importlib.util.find_spec("torch") is None:
        raise missing_extra("torch", "train", verb)


def require_onnx(verb: str) -> None:
    """Raise, with the command that installs it, where onnx is not to be had."""
    if importlib.util.find_spec("onnx") is None:
        raise missing_extra("onnx", "onnx", verb)


def require_device(device: str, verb: str) -> None:
    """Raise, before a folder is made, where this machine lacks torch or the device asked for."""
    require_torch(verb)
    if device != "auto":
        from kdeploy.training.setup import choose_device

        choose_device(device)


def require_resumable(folders: Sequence[Path], *, fresh: bool) -> None:
    """Raise where --resume cannot do what it says: none of these folders holds a run, or it is to be removed."""
    from kdeploy.provenance import RECORD

    if fresh:
        raise UserError("--resume goes on with a run and --fresh removes it: leave one of them out.")
    if not any((folder / RECORD).is_file() for folder in folders):
        places = ", ".join(map(str, folders))
        raise UserError(f"There is nothing to resume in {places}: without --resume the run begins there.")


def together(
    device: str,
    devices: int,
    nodes: int,
    runs: Sequence[tuple[Recipe, Path]],
    first: Callable[[Processes], None],
) -> None:
    """Call `first` in the first of all processes asked for; the others take part in the trainings of these runs."""
    from kdeploy import pipeline
    from kdeploy.training.processes import opened

    with opened(device, devices, nodes) as processes:
        if processes.first:
            first(processes)
            return
        for recipe, folder in runs:
            pipeline.take_part(recipe, folder, processes)


def carry_out(run: Run, stages: Sequence[Stage], siblings: Sequence[Path] = ()) -> None:
    """Do the stages that are not done yet, with a log of what was said."""
    from kdeploy import events, pipeline
    from kdeploy.runlog import RunLog

    with events.listening(RunLog(run.folder)):
        pipeline.execute(run, stages, siblings)
