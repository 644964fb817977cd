"""`kdeploy sensitivity`: what int8 costs in each layer alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register

_SAMPLES = 512


def sensitivity(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with exported networks.")],
    role: Annotated[
        str, typer.Option("--role", metavar="ROLE", help="Which network: student, student-2 and so on.")
    ] = "student",
    samples: Annotated[
        int, typer.Option("--samples", metavar="N", min=1, help="Validation images to measure on.")
    ] = _SAMPLES,
    json_: options.JsonOption = None,
) -> None:
    """Quantise each layer of a run's student alone, and show what that costs, the worst first.

    Example: kdeploy sensitivity runs/quickstart
    """
    from kdeploy import pipeline
    from kdeploy.cli.execution import require_onnx
    from kdeploy.cli.output import add, emit, talking
    from kdeploy.stages.sensitivity import measure

    require_onnx("kdeploy sensitivity")
    with talking():
        found = measure(pipeline.reopen(run), role, samples)
    emit(json_, found.content, _table(found.content))
    add(json_, f"plot  {found.plot}\ndata  {found.data}")


def register(app: typer.Typer) -> None:
    _register(app, sensitivity, "sensitivity")


def _table(content: dict[str, Any]) -> Any:
    from kdeploy.cli.tables import plain_table
    from kdeploy.report import figures

    worst_first = sorted(content["layers"], key=lambda cost: -cost["divergence"])
    rows = [
        (
            cost["layer"],
            cost["operator"],
            figures.significant(cost["divergence"]),
            figures.percent(cost["same_class"]),
            "-" if cost["accuracy_points"] is None else f"{cost['accuracy_points']:+.2f}",
        )
        for cost in worst_first
    ]
    titles = ("layer in int8", "operator", "divergence, nats", "same class", "points")
    table = plain_table(titles, rows, right=titles[2:])
    images = content["images"]
    table.caption = (
        f"Scheme {content['scheme']}, on {images['samples']} {images['what']} of validation, all other layers in "
        "float32. divergence: Kullback-Leibler, of the probabilities from float32's."
    )
    table.caption_justify = "left"
    return table
