"""`kdeploy export`: trained networks, any one model or somebody's ONNX file to ONNX, other precisions and engines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdeploy.cli import options
from kdeploy.cli.exporting import OPSET, SHAPE, export_model
from kdeploy.cli.models import complete_model
from kdeploy.cli.verbs import register as _register

if TYPE_CHECKING:
    from kdeploy.parity import Parity
    from kdeploy.stages.base import Run
    from kdeploy.stages.model import ModelRun


_OPTIONS = {"board": "for"}
"""Options whose parameters have other names, as theirs are words of Python."""


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
        str | None, typer.Option("--shape", metavar="CxHxW", help="A model's input.", show_default=SHAPE)
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
    board: options.BoardOption = None,
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
        typer.Option("--opset", metavar="N", min=13, max=23, help="A file's ONNX opset.", show_default=str(OPSET)),
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
    simplify: Annotated[
        bool, typer.Option("--simplify", help="Let onnxslim clean the file up; kept only if parity holds.")
    ] = False,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="Where parity fails, find the first node that computes something else.")
    ] = False,
    target: options.TargetOption = "local",
    json_: options.JsonOption = None,
) -> None:
    """Export a run, any one model or an ONNX file to ONNX, quantise it, build engines, and check each against torch.

    Parity is measured and written beside each file; where it fails, the exit status is 3. Without --data it is shown
    on random inputs, in float32 alone. With --target the ONNX files are made here, and the engines on the device.

    Example: kdeploy export timm:mobilenetv4_conv_small --data photos --engine onnxruntime --precision int8
    """
    from rich.console import Group

    from kdeploy import targets
    from kdeploy.cli.building import build_engines
    from kdeploy.cli.output import add, emit, talking
    from kdeploy.cli.tables import agreement_table, files_table
    from kdeploy.errors import UserError
    from kdeploy.stages.builds import SUFFIX

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
        "board": board,
        "scheme": scheme,
        "samples": samples,
        "opset": opset,
        "size": size,
        "preprocess": preprocess,
        "simplify": simplify or None,
    }
    given = {name: value for name, value in of_a_model.items() if value is not None}
    place = targets.parse(target)
    if source.endswith(SUFFIX):  # what a device is given to do, see `builds`
        if place is not None or bisect or given.keys() - {"out"}:
            raise UserError(f"{source} says itself what is to be built here: leave all but --out and --json out.")
        build_engines(Path(source), out or Path("engines"), json_)
        return
    if Path(source).is_dir() and given:
        left_out = ", ".join(f"--{_OPTIONS.get(name, name)}" for name in given)
        raise UserError(f"{source} is a run, whose recipe says how it is exported: leave out {left_out}.")
    if place is not None:
        _there(place, source, given, bisect=bisect, json_=json_)
        return
    with talking():
        if not Path(source).is_dir():
            run = export_model(source, given)
            written, rows = run.written, _rows(run)
            found = _bisected(run, written) if bisect else []
        else:
            opened = _run(Path(source))
            written, rows = sorted(opened.folder.glob("export/*.onnx")), []
            found = _bisected(opened, written) if bisect else []
    files, table = files_table(written, _against(source))
    engines, below = agreement_table(rows)
    emit(json_, {**files, **engines}, Group(table, "", below) if rows else table)
    if found:
        add(json_, "\n".join(found))
    _require_parity(written)


def register(app: typer.Typer) -> None:
    _register(app, export, "export")


def _run(folder: Path) -> Run:
    """The stages of the run's recipe up to the engines, done."""
    from kdeploy import pipeline
    from kdeploy.cli.execution import carry_out, require_torch

    require_torch("kdeploy export")
    opened = pipeline.reopen(folder)
    carry_out(opened, [*pipeline.training(opened.recipe), *pipeline.compilation(opened.recipe)])
    return opened


def _rows(run: ModelRun) -> list[Any]:
    from kdeploy.stages.model_rows import measure

    return measure(run)


def _against(source: str) -> str:
    """What the float32 file was compared with."""
    return "the file itself" if source.endswith(".onnx") else "torch"


def _there(place: options.Target, source: str, given: dict[str, Any], *, bisect: bool, json_: str | None) -> None:
    """The files with their parity, made here, and the engines as the device built them; what failed parity is not."""
    from rich.console import Group

    from kdeploy.cli.building import built_table
    from kdeploy.cli.export_there import build_there, model_for, run_for
    from kdeploy.cli.output import add, emit, talking
    from kdeploy.cli.tables import files_table

    with talking():
        is_run = Path(source).is_dir()
        run, stages = run_for(place, Path(source)) if is_run else model_for(place, source, given)
        written = sorted({*run.folder.glob("export/*.onnx")} if is_run else {stage.source(run) for stage in stages})
        found = _bisected(run, written) if bisect else []
        built, kept = build_there(place, run, stages) if _holds(written) else ([], Path())
    files, table = files_table(written, _against(source))
    engines, below = built_table(built, str(kept))
    emit(json_, {**files, **engines}, Group(table, "", below) if built else table)
    if found:
        add(json_, "\n".join(found))
    _require_parity(written)
    add(json_, f"Measure them there:  kdeploy bench {run.folder} --target {place.text}")


def _bisected(run: Run, written: list[Path]) -> list[str]:
    """For each float32 file that failed parity, which of its nodes is the first to part, in a sentence."""
    from kdeploy import artifacts, parity
    from kdeploy.stages.bisect import bisect
    from kdeploy.stages.precisions import FLOAT32

    sentences = []
    for path in written:
        role, precision = path.stem.rpartition(".")[::2]
        if precision != FLOAT32 or artifacts.read_json(parity.record_path(path))["passed"]:
            continue
        found = bisect(run, role)
        why = (
            "every node agrees when its output is looked at: the runtime's fusions, or a batch of another size, differ"
        )
        sentences.append(f"{path.name}: {why if found is None else found.sentence()}.")
    return sentences


def _holds(written: list[Path]) -> bool:
    return all(_parity(path).passed for path in written)


def _require_parity(written: list[Path]) -> None:
    for path in written:
        _parity(path).require(str(path))


def _parity(path: Path) -> Parity:
    from kdeploy import artifacts, parity

    return parity.Parity.model_validate(artifacts.read_json(parity.record_path(path)))
