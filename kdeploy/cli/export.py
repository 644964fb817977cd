"""`kdeploy export`: trained networks to ONNX and engines, or any one model to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdeploy.cli import options
from kdeploy.cli.models import complete_model
from kdeploy.cli.verbs import register as _register

_SHAPE, _CLASSES, _OPSET = "3x224x224", 1000, 18


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_MODEL",
            help="A run folder, or a model: a zoo name, torchvision:NAME, timm:NAME or python:module:factory.",
            autocompletion=complete_model,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where a model's files go.", show_default="the current folder"),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", metavar="FILE", help="A model's weights; without: random ones.")
    ] = None,
    shape: Annotated[
        str | None, typer.Option("--shape", metavar="CxHxW", help="A model's input.", show_default=_SHAPE)
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option("--classes", metavar="N", min=2, help="A model's classes.", show_default=str(_CLASSES)),
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option("--opset", metavar="N", min=18, max=23, help="A file's ONNX opset.", show_default=str(_OPSET)),
    ] = None,
    json_: options.JsonOption = None,
) -> None:
    """Export the networks of a run to ONNX, quantise them and build its engines; or export any one model.

    Parity with torch is measured and written beside each file; where it fails, the exit status is 3.

    Example: kdeploy export runs/quickstart
    """
    from kdeploy.cli.output import emit, talking
    from kdeploy.cli.tables import files_table
    from kdeploy.errors import UserError

    of_a_model = {"out": out, "checkpoint": checkpoint, "shape": shape, "classes": classes, "opset": opset}
    given = [f"--{name}" for name, value in of_a_model.items() if value is not None]
    with talking():
        if not Path(source).is_dir():
            written = _model(source, out or Path(), checkpoint, shape or _SHAPE, classes or _CLASSES, opset or _OPSET)
        elif given:
            raise UserError(f"{source} is a run, whose recipe says how it is exported: leave out {', '.join(given)}.")
        else:
            written = _run(Path(source))
    payload, table = files_table(written)
    emit(json_, payload, table)
    _require_parity(written)


def register(app: typer.Typer) -> None:
    _register(app, export, "export")


def _run(folder: Path) -> list[Path]:
    """The stages of the run's recipe up to the engines; its ONNX files."""
    from kdeploy import pipeline
    from kdeploy.cli.execution import carry_out, require_torch

    require_torch("kdeploy export")
    opened = pipeline.reopen(folder)
    carry_out(opened, [*pipeline.training(opened.recipe), *pipeline.compilation(opened.recipe)])
    return sorted(folder.glob("export/*.onnx"))


def _model(name: str, out: Path, checkpoint: Path | None, shape: str, classes: int, opset: int) -> list[Path]:
    """One model to `DIR/<model>.float32.onnx`, raw images in and probabilities out."""
    from kdeploy import events, models
    from kdeploy.cli.execution import require_torch
    from kdeploy.cli.models import parse_shape
    from kdeploy.errors import UserError
    from kdeploy.recipe.schema import NetworkSpec

    try:
        models.check(name)
    except UserError as error:
        raise UserError(f"There is no run folder {name}. {error}") from None
    if checkpoint is None:
        events.decided("weights", "random", "no --checkpoint was given")
    elif not checkpoint.is_file():
        raise UserError(f"There is no file {checkpoint}.")
    require_torch("kdeploy export")
    from kdeploy.stages.export import export_model

    spec = NetworkSpec(model=name, checkpoint=None if checkpoint is None else str(checkpoint.resolve()))
    with events.task(f"export {name}"):
        return [export_model(spec, out, shape=parse_shape(shape), classes=classes, opset=opset)]


def _require_parity(written: list[Path]) -> None:
    from kdeploy import artifacts, parity

    for path in written:
        parity.Parity.model_validate(artifacts.read_json(parity.record_path(path))).require(str(path))
