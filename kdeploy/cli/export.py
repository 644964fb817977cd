"""`kdeploy export`: trained networks, any one model or somebody's ONNX file to ONNX, other precisions and engines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdeploy.cli import options
from kdeploy.cli.models import complete_model
from kdeploy.cli.verbs import register as _register

if TYPE_CHECKING:
    from kdeploy.recipe.schema import ExportSpec
    from kdeploy.stages.model import Asked, ModelRun

_SHAPE, _OPSET = "3x224x224", 18


def _complete_engine(incomplete: str) -> list[str]:
    from kdeploy.engines import names

    return [name for name in names() if name.startswith(incomplete)]


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A run folder; a model: a zoo name, torchvision:NAME, timm:NAME or python:module:factory; or an ONNX "
            "file.",
            autocompletion=complete_model,
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="PATH", help="Images for parity, calibration and accuracy: folders of classes, or one."
        ),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "--engine", metavar="NAME", help="Build this engine; may be repeated.", autocompletion=_complete_engine
        ),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option("--precision", metavar="NAME", help="May be repeated.", show_default="float32"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where a model's files go.", show_default="exported/<model>"),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", metavar="FILE", help="A model's weights; without: random ones.")
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Published weights, which torchvision or timm downloads.")
    ] = False,
    shape: Annotated[
        str | None, typer.Option("--shape", metavar="CxHxW", help="A model's input.", show_default=_SHAPE)
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(
            "--classes", metavar="N", min=2, help="A model's classes.", show_default="those of --data, else 1000"
        ),
    ] = None,
    mean: Annotated[
        str | None, typer.Option("--mean", metavar="A,B,C", help="Of images in [0, 1].", show_default="the model's own")
    ] = None,
    std: Annotated[
        str | None, typer.Option("--std", metavar="A,B,C", help="Of images in [0, 1].", show_default="the model's own")
    ] = None,
    scheme: Annotated[
        str | None,
        typer.Option("--scheme", metavar="NAME", help="The target's int8.", show_default="this processor's"),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", metavar="N", min=1, help="Measure on at most so many images.", show_default="1000"),
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option("--opset", metavar="N", min=13, max=23, help="A file's ONNX opset.", show_default=str(_OPSET)),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="fixed|open|resize",
            help="Images of one size; of any that the network runs at; of any, resized in the graph.",
            show_default="fixed",
        ),
    ] = None,
    preprocess: Annotated[
        str | None,
        typer.Option(
            "--preprocess",
            metavar="in-graph|outside|none",
            help="Raw images in; normalised ones; none: an ONNX file takes pixels from 0 to 255.",
            show_default="in-graph",
        ),
    ] = None,
    json_: options.JsonOption = None,
) -> None:
    """Export a run, any one model or an ONNX file to ONNX, quantise it, build engines, and check each against torch.

    Parity is measured and written beside each file; where it fails, the exit status is 3. Without --data it is shown
    on random inputs, in float32 alone.

    Example: kdeploy export timm:mobilenetv4_conv_small --data photos --engine onnxruntime --precision int8
    """
    from kdeploy.cli.output import talking
    from kdeploy.errors import UserError

    of_a_model = {
        "data": data,
        "engine": engine,
        "precision": precision,
        "out": out,
        "checkpoint": checkpoint,
        "pretrained": pretrained or None,
        "shape": shape,
        "classes": classes,
        "mean": mean,
        "std": std,
        "scheme": scheme,
        "samples": samples,
        "opset": opset,
        "size": size,
        "preprocess": preprocess,
    }
    given = {name: value for name, value in of_a_model.items() if value is not None}
    with talking():
        if not Path(source).is_dir():
            run = _model(source, given)
            written, rows = run.written, _rows(run)
        elif given:
            left_out = ", ".join(f"--{name}" for name in given)
            raise UserError(f"{source} is a run, whose recipe says how it is exported: leave out {left_out}.")
        else:
            written, rows = _run(Path(source)), []
    _show(json_, written, rows, against="the file itself" if source.endswith(".onnx") else "torch")
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


def _model(name: str, given: dict[str, Any]) -> ModelRun:
    """One model of torch, or somebody's ONNX file, exported and compiled."""
    return _onnx_file(Path(name), given) if name.endswith(".onnx") else _torch_model(name, given)


def _torch_model(name: str, given: dict[str, Any]) -> ModelRun:
    from kdeploy import events, models
    from kdeploy.cli.execution import require_torch
    from kdeploy.errors import UserError
    from kdeploy.recipe.schema import NetworkSpec

    try:
        models.check(name)
    except UserError as error:
        raise UserError(f"There is no run folder {name}. {error}") from None
    checkpoint = given.get("checkpoint")
    if checkpoint is not None and not checkpoint.is_file():
        raise UserError(f"There is no file {checkpoint}.")
    if checkpoint is None and "pretrained" not in given:
        events.decided("weights", "random", "neither --checkpoint nor --pretrained was given")
    require_torch("kdeploy export")
    from kdeploy.stages.model import export_network, normalisation

    asked = _asked(name, given)
    network = NetworkSpec(
        model=name,
        checkpoint=None if checkpoint is None else str(checkpoint.resolve()),
        options={"pretrained": True} if "pretrained" in given else {},
        normalize=normalisation(*_mean_and_std(given), asked.shape[0]),
    )
    with events.task(f"export {name}"):
        return export_network(network, asked)


def _onnx_file(path: Path, given: dict[str, Any]) -> ModelRun:
    from kdeploy import events
    from kdeploy.cli.execution import require_onnx
    from kdeploy.errors import UserError

    require_onnx("kdeploy export of an ONNX file")
    from kdeploy.stages.adopt import adopt_file
    from kdeploy.stages.model import normalisation

    useless = [f"--{name}" for name in ("checkpoint", "pretrained") if name in given]
    if useless:
        raise UserError(f"{path} has its weights in it: leave {', '.join(useless)} out.")
    if given.get("size") == "open" or given.get("preprocess") == "outside":
        raise UserError(
            f"{path} is there already, with the sizes it has: --size open and --preprocess outside are for "
            "networks of torch."
        )
    as_they_are = given.pop("preprocess", "in-graph") == "none"
    asked = _asked(str(path), given)
    mean, std = _mean_and_std(given)
    if as_they_are and (mean or std):
        raise UserError("--preprocess none takes pixels as they are: leave --mean and --std out.")
    with events.task(f"export {path}"):
        return adopt_file(
            path,
            asked,
            given_shape="shape" in given,
            normalize=normalisation(mean, std, asked.shape[0]),
            as_they_are=as_they_are,
            opset=given.get("opset"),
        )


def _asked(name: str, given: dict[str, Any]) -> Asked:
    from kdeploy.cli.models import parse_shape
    from kdeploy.stages.model import DEFAULT_SAMPLES, FLOAT32, Asked, role_of

    asked = Asked(
        folder=given.get("out", Path("exported") / role_of(name)),
        data=given.get("data"),
        shape=parse_shape(given.get("shape", _SHAPE)),
        classes=given.get("classes"),
        export=_export_spec(given),
        engines=tuple(dict.fromkeys(given.get("engine", []))),
        precisions=tuple(dict.fromkeys(given.get("precision", [FLOAT32]))),
        scheme=given.get("scheme", "auto"),
        samples=given.get("samples", DEFAULT_SAMPLES),
    )
    asked.check()
    return asked


def _export_spec(given: dict[str, Any]) -> ExportSpec:
    """Its part of a recipe; a UserError for values that a recipe would not take either."""
    from pydantic import ValidationError

    from kdeploy.errors import UserError
    from kdeploy.recipe.schema import ExportSpec

    written = {name: given[name] for name in ("opset", "size", "preprocess") if name in given}
    if written.get("preprocess") == "none":
        raise UserError("--preprocess none is for ONNX files, which may have no preprocessing of ours: leave it out.")
    try:
        return ExportSpec.model_validate(written)
    except ValidationError as error:
        first = error.errors()[0]
        option = "".join(f"--{part}: " for part in first["loc"])
        raise UserError(f"{option}{first['msg'].removeprefix('Value error, ')}.") from None


def _mean_and_std(given: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Numbers with commas; empty where an option was not given."""
    from kdeploy.errors import UserError

    found = []
    for name in ("mean", "std"):
        try:
            found.append([float(value) for value in given[name].split(",")] if name in given else [])
        except ValueError:
            raise UserError(f"--{name} {given[name]!r} must be numbers with commas, as in 0.5,0.5,0.5.") from None
    return found[0], found[1]


def _rows(run: ModelRun) -> list[Any]:
    from kdeploy.stages.model_rows import measure

    return measure(run)


def _show(target: str | None, written: list[Path], rows: list[Any], *, against: str) -> None:
    """The files with their parity, and below them the engines, where there are any."""
    from rich.console import Group

    from kdeploy.cli.output import emit
    from kdeploy.cli.tables import agreement_table, files_table

    files, table = files_table(written, against)
    engines, below = agreement_table(rows)
    emit(target, {**files, **engines}, Group(table, "", below) if rows else table)


def _require_parity(written: list[Path]) -> None:
    from kdeploy import artifacts, parity

    for path in written:
        parity.Parity.model_validate(artifacts.read_json(parity.record_path(path))).require(str(path))
