"""`kdeploy report`: the report of runs that were measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders; several: the seeds of one recipe.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Where to write it: .html, or .md for Markdown.",
            show_default="report.html in RUN, or beside several",
        ),
    ] = None,
    json_: options.JsonOption = None,
) -> None:
    """Write the HTML report of a run, and print its table again.

    Example: kdeploy report runs/quickstart
    """
    from kdeploy import artifacts, results
    from kdeploy.cli.output import add, emit, talking
    from kdeploy.report.html import write_report
    from kdeploy.report.markdown_page import page
    from kdeploy.report.seeds import aggregate
    from kdeploy.report.terminal import AggregateTable, ResultTable

    folders = _each(runs)
    found = [results.read(folder) for folder in folders]
    several = len(found) > 1
    target = out or (folders[0].parent if several else folders[0]) / "report.html"
    with talking():
        data = results.report_data(folders[0], found)
        if target.suffix == ".md":
            artifacts.write_text(target, page(data, {run.record.seed: run.rows for run in found}))
        else:
            write_report(target, data)
    table = AggregateTable(aggregate([run.rows for run in found])) if several else ResultTable(found[0].rows)
    payload = results.seeds_to_json(found) if several else found[0].to_json()
    emit(json_, {**payload, "report": str(target)}, table)
    add(json_, f"report  {target}")


def register(app: typer.Typer) -> None:
    _register(app, report, "report")


def _each(runs: list[Path]) -> list[Path]:
    """The run folders; a folder of seeds stands for its runs. All are of one recipe."""
    from kdeploy.cli.runs import seeds_in
    from kdeploy.errors import UserError
    from kdeploy.provenance import RunRecord

    folders = [run for at in runs for run in (seeds_in(at) or [at])]
    names = {RunRecord.read(folder).name for folder in folders}
    if len(names) > 1:
        raise UserError(f"These are runs of several recipes ({', '.join(sorted(names))}): report them one by one.")
    return folders
