"""What `--dry-run` prints: the stages, what is done, and an estimate of time, disk and downloads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdeploy.cli.output import emit
from kdeploy.cli.tables import plain_table

if TYPE_CHECKING:
    from kdeploy.recipe.schema import Recipe


def show_plan(recipe: Recipe, folder: Path, seeds: list[int], device: str, json_: str | None) -> None:
    """Print the plan of a run without doing any of it."""
    from kdeploy.estimate import estimate
    from kdeploy.report import figures

    plan = estimate(recipe, folder, seeds, device)
    rows = [(step.stage, step.state, _seconds(step.seconds), step.basis) for step in plan.steps]
    table = plain_table(("stage", "state", "time", "estimated from"), rows, right=("time",))
    table.caption = (
        f"In all about {_seconds(plan.seconds)}, {figures.size(plan.disk_bytes)} on disk under {folder}; "
        f"downloads: {plan.downloads or 'none'}."
    )
    table.caption_justify = "left"
    emit(json_, plan.model_dump(mode="json"), table)


def _seconds(value: float | None) -> str:
    if value is None:
        return "?"
    if value < 90:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"
