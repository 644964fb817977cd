"""What `--dry-run` prints: the stages, what is done, and an estimate of time, disk and downloads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from kdeploy.cli.console import duration
from kdeploy.cli.output import emit
from kdeploy.cli.tables import plain_table

if TYPE_CHECKING:
    from kdeploy.recipe.schema import Recipe


def show_plan(recipe: Recipe, folder: Path, seeds: list[int], device: str, fresh: bool, json_: str | None) -> None:
    """Print the plan of a run without doing any of it."""
    from kdeploy.estimate import estimate
    from kdeploy.report import figures

    plan = estimate(recipe, folder, seeds, device, fresh=fresh)
    rows = [(step.stage, step.state, _time(step.seconds), step.basis) for step in plan.steps]
    table = plain_table(("stage", "state", "time", "estimated from"), rows, right=("time",))
    known = "In all about" if plan.seconds is not None else "Without what is not known yet, at least"
    seconds = sum(step.seconds or 0.0 for step in plan.steps)
    table.caption = Text(
        f"{known} {duration(seconds)}, {figures.size(plan.disk_bytes)} on disk under {folder}; "
        f"downloads: {plan.downloads or 'none'}."
    )
    table.caption_justify = "left"
    emit(json_, plan.model_dump(mode="json"), table)


def _time(seconds: float | None) -> str:
    return "?" if seconds is None else duration(seconds)
