"""`kdeploy report`: the report of runs that were measured."""

from __future__ import annotations

from os.path import commonpath
from pathlib import Path
from typing import Annotated

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Run folders; several: seeds of one recipe, or any.")
    ],
    out: Annotated[
        list[Path] | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Where to write it; the ending is the format: .html, .md, .csv, .json (all data), .schema.json (their "
            "JSON Schema), .dashboard.json (customSmallerIsBetter). May be repeated.",
            show_default="report.html in RUN, or in the folder that holds all",
        ),
    ] = None,
    json_: options.JsonOption = None,
) -> None:
    """Write the HTML report of a run, or its figures in another format, and print its table again.

    Seeds of one recipe are shown by their means. Other runs stand beside each other, each under a letter.

    Example: kdeploy report runs/quickstart
    """
    from rich.console import Group

    from kdeploy import results
    from kdeploy.cli.output import add, emit, talking
    from kdeploy.cli.runs import seeds_in
    from kdeploy.report.formats import files
    from kdeploy.report.seeds import aggregate
    from kdeploy.report.terminal import AggregateTable, ResultTable

    folders = list(dict.fromkeys(run for at in runs for run in (seeds_in(at) or [at])))
    found = [results.read(folder) for folder in folders]
    targets = out or [Path(commonpath(folders)) / "report.html"]
    for target in targets:
        files.ending_of(target)
    with talking():
        data, per_seed = results.on_one_page(found)
        for target in targets:
            files.write(target, data, per_seed)
    means = aggregate([run.rows for run in found]) if results.are_seeds(found) else None
    payload = results.page_to_json(found, data)
    table = ResultTable(data.rows) if means is None else AggregateTable(means)
    elsewhere = [
        part
        for device in data.devices
        for part in ("", f"On {device.name}:", ResultTable(device.rows), device.outdated_note)
        if part is not None
    ]
    emit(
        json_,
        {**payload, "report": str(targets[0]), "reports": [str(target) for target in targets]},
        Group(table, *elsewhere),
    )
    add(json_, "\n".join([*results.letters(found), *(f"report  {target}" for target in targets)]))


def register(app: typer.Typer) -> None:
    _register(app, report, "report")
