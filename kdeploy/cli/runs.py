"""`kdeploy runs`: the runs of a folder, their sizes, and how to be rid of one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register


def runs(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where the runs lie.")] = Path("runs"),
    delete: Annotated[
        Path | None, typer.Option("--delete", metavar="RUN", help="Remove this run; asks first on a terminal.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json_: options.JsonOption = None,
) -> None:
    """List runs with their size and how far they came, or delete one.

    Example: kdeploy runs --delete runs/quickstart
    """
    from kdeploy.cli.output import emit
    from kdeploy.cli.tables import plain_table
    from kdeploy.report import figures

    if delete is not None:
        _delete(delete, yes)
        return
    found = [_describe(path.parent) for path in sorted(folder.rglob("run.json"))]
    rows = [
        (
            one["run"],
            str(one["seed"]),
            one["created_at"],
            figures.size(one["size_bytes"]),
            one["last_stage"] or "nothing",
        )
        for one in found
    ]
    titles = ("run", "seed", "created", "size", "finished up to")
    emit(json_, {"schema_version": 1, "runs": found}, plain_table(titles, rows, right=("seed", "size")))


def register(app: typer.Typer) -> None:
    _register(app, runs, "runs")


def _describe(folder: Path) -> dict[str, Any]:
    from kdeploy import artifacts
    from kdeploy.provenance import RunRecord

    record = RunRecord.read(folder)
    return {
        "run": str(folder),
        "name": record.name,
        "seed": record.seed,
        "created_at": record.created_at,
        "size_bytes": artifacts.size_bytes(folder),
        "last_stage": next(reversed(record.stages), None),
    }


def _delete(folder: Path, yes: bool) -> None:
    import shutil
    import sys

    from kdeploy.cli.console import stderr
    from kdeploy.errors import UserError
    from kdeploy.provenance import RunRecord

    RunRecord.read(folder)  # refuses whatever is not a run
    if not yes and not sys.stdin.isatty():
        raise UserError(f"Deleting {folder} cannot be undone. Type --yes to do it without being asked.")
    if yes or typer.confirm(f"Delete {folder}?", err=True):
        shutil.rmtree(folder)
        stderr.print(f"- deleted {folder}", markup=False)
