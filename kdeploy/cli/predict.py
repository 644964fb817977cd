"""`kdeploy predict`: what a bundle says of pictures. Works without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register


def predict(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A .kdz file.")],
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT", help="Picture files.")],
    threads: options.ThreadsOption = 1,
    json_: options.JsonOption = None,
) -> None:
    """Classify pictures with a bundle; needs no torch.

    Example: kdeploy predict quickstart.kdz digit-7.png
    """
    from kdeploy.cli.output import emit, talking
    from kdeploy.cli.tables import plain_table
    from kdeploy.runtime.predict import Predictor

    with talking(brief=True), Predictor.open(bundle, threads=threads) as predictor:
        found = predictor.predict(inputs)
    payload = {
        "schema_version": 1,
        "bundle": str(bundle),
        "predictions": [
            {
                "input": str(one.path),
                "class": one.class_name,
                "probability": one.probability,
                "top": [{"class": name, "probability": probability} for name, probability in one.top],
            }
            for one in found
        ],
    }
    rows = [
        (
            str(one.path),
            one.class_name,
            f"{100 * one.probability:.1f} %",
            ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in one.top[1:3]),
        )
        for one in found
    ]
    emit(json_, payload, plain_table(("input", "class", "probability", "next"), rows, right=("probability",)))


def register(app: typer.Typer) -> None:
    _register(app, predict, "predict")
