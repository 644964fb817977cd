"""`kdeploy report`: the report of runs that were measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders; several: the seeds of one recipe.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Where to write it: .html, or .md for Markdown.",
            show_default="RUN/report.html",
        ),
    ] = None,
    json_: options.JsonOption = None,
) -> None:
    """Write the HTML report of a run, and print its table again.

    Example: kdeploy report runs/quickstart
    """
    from kdeploy import artifacts, results
    from kdeploy.cli.console import stdout
    from kdeploy.cli.output import emit, talking
    from kdeploy.report.html import write_report
    from kdeploy.report.markdown_page import page
    from kdeploy.report.seeds import aggregate
    from kdeploy.report.terminal import AggregateTable, ResultTable

    found = [results.read(folder) for folder in runs]
    several = len(found) > 1
    target = out or runs[0] / "report.html"
    with talking():
        data = results.report_data(runs[0], found)
        if target.suffix == ".md":
            artifacts.write_text(target, page(data, {run.record.seed: run.rows for run in found}))
        else:
            write_report(target, data)
    table = AggregateTable(aggregate([run.rows for run in found])) if several else ResultTable(found[0].rows)
    emit(json_, results.seeds_to_json(found) if several else found[0].to_json(), table)
    if json_ != "-":
        stdout.print(f"\nreport  {target}", markup=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    _register(app, report, "report")
