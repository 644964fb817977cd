"""`kdeploy bundle`: pack the engine that is shipped, or one of each student."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register


def bundle(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with built engines.")],
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            metavar="ENGINE",
            help="Which one, such as student-onnxruntime-int8.",
            show_default="the fastest that holds the gates, of each student",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Where to write it.", show_default="RUN/<name>.kdz, as in `run`"),
    ] = None,
    json_: options.JsonOption = None,
) -> None:
    """Pack an engine with its class names, preprocessing and provenance into one .kdz file.

    Example: kdeploy bundle runs/quickstart --engine student-onnxruntime-float32
    """
    from kdeploy import pipeline
    from kdeploy.bench.artifacts import role_of
    from kdeploy.cli.output import emit, talking
    from kdeploy.cli.tables import facts
    from kdeploy.errors import UserError, nearest
    from kdeploy.recipe.networks import deployed
    from kdeploy.report import figures
    from kdeploy.stages import bundle as stage
    from kdeploy.stages.bench import measurements

    with talking():
        opened = pipeline.reopen(run)
        students = deployed(opened.recipe)
        built = [path.parent.name for path in sorted((run / "engines").glob("*/manifest.json"))]
        shippable = [name for name in built if not name.endswith("pytorch")]
        if not shippable:
            raise UserError(f"{run} has no engine to pack yet. Type: kdeploy export {run}")
        if engine is not None and engine not in shippable:
            raise UserError(f"{run} has no engine {engine!r}.{nearest(engine, shippable)}")
        if engine is None and not measurements(run):
            raise UserError(f"{run} is not measured: choose an engine with --engine: {', '.join(shippable)}.")
        if engine is None and out is not None and len(students) > 1:
            raise UserError(f"{run} has {len(students)} students, a bundle each: name one with --engine beside --out.")
        rows = [engine] if engine is not None else [stage.choose(opened, role) for role in students]
        targets = [out or stage.bundle_file(run, opened.recipe.name, role_of(row)) for row in rows]
        packed = [stage.pack(opened, row, target) for row, target in zip(rows, targets, strict=True)]
    found = [
        {"bundle": str(target), **info.model_dump(mode="json", exclude={"schema_version"})}
        for target, info in zip(targets, packed, strict=True)
    ]
    lines = [
        line
        for target, row in zip(targets, rows, strict=True)
        for line in (("bundle", str(target)), ("engine", row), ("size", figures.size(target.stat().st_size)))
    ]
    emit(json_, {"schema_version": 1, **found[0], "bundles": found}, facts(lines))


def register(app: typer.Typer) -> None:
    _register(app, bundle, "bundle")
