"""`kdeploy runs`: the runs of a folder, their sizes, and how to be rid of one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register

_DEFAULT = Path("runs")


def runs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the runs lie.")] = _DEFAULT,
    delete: Annotated[
        Path | None,
        typer.Option("--delete", metavar="RUN", help="Remove this run, or all seeds of it; asks first on a terminal."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json_: options.JsonOption = None,
) -> None:
    """List runs with their size and how far they came, or delete one.

    Example: kdeploy runs --delete runs/quickstart
    """
    import shutil

    from kdeploy.cli.output import emit, talking
    from kdeploy.cli.tables import facts, plain_table
    from kdeploy.errors import UserError
    from kdeploy.report import figures

    if delete is not None:
        size = _require_run(delete)
        if not yes and not _confirmed(delete):
            return
        shutil.rmtree(delete)
        payload = {"schema_version": 1, "deleted": str(delete), "size_bytes": size}
        emit(json_, payload, facts([("deleted", f"{delete}, {figures.size(size)}")]))
        return
    if folder != _DEFAULT and not folder.is_dir():
        raise UserError(f"There is no folder {folder}.")
    with talking():
        found = [described for path in sorted(folder.rglob("run.json")) if (described := _describe(path.parent))]
    rows = [
        (
            one["run"],
            str(one["seed"]),
            one["created_at"][:16].replace("T", " "),
            figures.size(one["size_bytes"]),
            one["last_stage"] or "-",
        )
        for one in found
    ]
    titles = ("run", "seed", "created (UTC)", "size", "finished up to")
    nothing = f"No runs in {folder}. Type: kdeploy run quickstart"
    table = plain_table(titles, rows, right=("seed", "size")) if rows else nothing
    emit(json_, {"schema_version": 1, "runs": found}, table)


def register(app: typer.Typer) -> None:
    _register(app, runs, "runs")


def seeds_in(folder: Path) -> list[Path]:
    """The run folders that `kdeploy run --seeds` made in this folder, in the order of their names."""
    from kdeploy.provenance import RECORD

    return sorted(path.parent for path in folder.glob(f"seed-*/{RECORD}"))


def _describe(folder: Path) -> dict[str, Any] | None:
    """What is listed of a run; None, and a warning, where its record cannot be read."""
    from kdeploy import artifacts, events
    from kdeploy.errors import UserError
    from kdeploy.provenance import RunRecord

    try:
        record = RunRecord.read(folder)
    except UserError as error:
        events.warn(str(error))
        return None
    return {
        "run": str(folder),
        "name": record.name,
        "seed": record.seed,
        "created_at": record.created_at,
        "size_bytes": artifacts.size_bytes(folder),
        "last_stage": next(reversed(record.stages), None),
    }


def _require_run(folder: Path) -> int:
    """The bytes of a run folder, or of one that holds nothing but the seeds of a run; a UserError for any other."""
    from kdeploy import artifacts
    from kdeploy.errors import UserError
    from kdeploy.provenance import RECORD, RunRecord

    if folder.is_symlink():
        raise UserError(f"{folder} is a link. Delete what it points to: {folder.resolve()}")
    seeds = seeds_in(folder)
    if (folder / RECORD).exists() or not seeds:
        RunRecord.read(folder)
    else:
        ours = {*(seed.name for seed in seeds), "summary.json", "report.html"}
        others = sorted(path.name for path in folder.iterdir() if path.name not in ours)
        if others:
            raise UserError(f"{folder} holds more than the seeds of a run ({', '.join(others)}): remove it by hand.")
    return artifacts.size_bytes(folder)


def _confirmed(folder: Path) -> bool:
    import sys

    from kdeploy.errors import UserError

    if not sys.stdin.isatty():
        raise UserError(f"Deleting {folder} cannot be undone. Type --yes to do it without being asked.")
    return typer.confirm(f"Delete {folder}?", err=True)
