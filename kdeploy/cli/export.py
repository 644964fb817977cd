"""`kdeploy export`: trained networks to ONNX and engines, or any one model to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_MODEL",
            help="A run folder, or a model: a zoo name, torchvision:NAME, timm:NAME or python:module:factory.",
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where a model's files go.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", metavar="FILE", help="A model's weights; without: random ones.")
    ] = None,
    shape: Annotated[str, typer.Option("--shape", metavar="CxHxW", help="A model's input.")] = "3x224x224",
    classes: Annotated[int, typer.Option("--classes", min=2, help="A model's classes.")] = 1000,
    opset: Annotated[int, typer.Option("--opset", min=18, max=23, help="ONNX opset of a model's file.")] = 18,
    json_: options.JsonOption = None,
) -> None:
    """Export the networks of a run to ONNX, quantise them and build its engines; or export any one model.

    Parity with torch is measured and written beside each file; where it fails, the exit status is 3.

    Example: kdeploy export runs/quickstart
    """
    from kdeploy.cli.output import emit, talking
    from kdeploy.cli.tables import files_table

    with talking():
        written = (
            _run(Path(source)) if Path(source).is_dir() else _model(source, out, checkpoint, shape, classes, opset)
        )
    payload, table = files_table(written)
    emit(json_, payload, table)
    _require_parity(written)


def register(app: typer.Typer) -> None:
    _register(app, export, "export")


def _run(folder: Path) -> list[Path]:
    """The stages of the run's recipe up to the engines; its ONNX files."""
    from kdeploy import events, pipeline
    from kdeploy.runlog import RunLog

    opened = pipeline.reopen(folder)
    with events.listening(RunLog(folder)):
        pipeline.execute(opened, [*pipeline.training(opened.recipe), *pipeline.compilation(opened.recipe)])
    return sorted(folder.glob("export/*.onnx"))


def _model(name: str, out: Path | None, checkpoint: Path | None, shape: str, classes: int, opset: int) -> list[Path]:
    """One model to `DIR/<model>.float32.onnx`, raw images in and probabilities out."""
    from kdeploy import models
    from kdeploy.cli.models import parse_shape
    from kdeploy.errors import UserError
    from kdeploy.recipe.schema import NetworkSpec
    from kdeploy.stages.export import export_model

    if out is None:
        raise UserError(f"{name} is not a run folder. To export a model of that name, say where: --out DIR.")
    models.check(name)
    if checkpoint is not None and not checkpoint.is_file():
        raise UserError(f"There is no file {checkpoint}.")
    spec = NetworkSpec(model=name, checkpoint=None if checkpoint is None else str(checkpoint.resolve()))
    return [export_model(spec, out, shape=parse_shape(shape), classes=classes, opset=opset)]


def _require_parity(written: list[Path]) -> None:
    from kdeploy import artifacts, parity

    for path in written:
        parity.Parity.model_validate(artifacts.read_json(parity.record_path(path))).require(str(path))
