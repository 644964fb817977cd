"""`kdeploy models`: the zoo, or one network of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register


def _complete(incomplete: str) -> list[str]:
    from kdeploy.models import names

    return [name for name in names() if name.startswith(incomplete)]


def models(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="Build this one and count it: a zoo name, torchvision:NAME, timm:NAME or python:module:factory.",
            autocompletion=_complete,
        ),
    ] = None,
    shape: Annotated[str, typer.Option("--shape", metavar="CxHxW", help="Input to count for.")] = "3x32x32",
    classes: Annotated[int, typer.Option("--classes", min=2, help="Number of classes.")] = 10,
    json_: options.JsonOption = None,
) -> None:
    """List the zoo with papers, or count one network's parameters and multiply-accumulates.

    Example: kdeploy models resnet8 --shape 3x32x32
    """
    from kdeploy import models as room
    from kdeploy.cli.output import emit
    from kdeploy.cli.tables import plain_table

    if name is not None:
        counted = _count(name, shape, classes)
        facts = [(key, f"{value:,}" if isinstance(value, int) else str(value)) for key, value in counted.items()]
        emit(json_, {"schema_version": 1, **counted}, plain_table(("", name), facts[1:]))
        return
    known = [room.describe(one) for one in room.names()]
    payload = [{**asdict(one), "parameters": _published(one)} for one in known]
    rows = [(one.name, _parameters(one), one.about, one.paper) for one in known]
    titles = ("model", "parameters (10 classes)", "about", "paper")
    emit(json_, {"schema_version": 1, "models": payload}, plain_table(titles, rows, right=titles[1:2]))


def register(app: typer.Typer) -> None:
    _register(app, models, "models")


def parse_shape(text: str) -> tuple[int, int, int]:
    """`3x32x32` to (channels, height, width)."""
    from kdeploy.errors import UserError

    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UserError(f"--shape {text!r} must be written CxHxW, for example 3x32x32.")
    channels, height, width = (int(part) for part in parts)
    return channels, height, width


def _count(name: str, shape: str, classes: int) -> dict[str, Any]:
    from kdeploy import models as room
    from kdeploy.errors import missing_extra

    channels, height, width = parse_shape(shape)
    room.check(name)
    try:
        from kdeploy.models.counting import count
    except ModuleNotFoundError:
        raise missing_extra("torch", "train", "kdeploy models NAME") from None
    from kdeploy.recipe.schema import NetworkSpec

    network = room.create(NetworkSpec(model=name), classes=classes, channels=channels)
    counts = count(network, (channels, height, width))
    described = {"paper": room.describe(name).paper} if name in room.names() else {}
    return {"name": name, "shape": shape, "classes": classes, **asdict(counts), **described}


def _published(one: Any) -> dict[str, int]:
    return {f"{classes} classes, {channels} channels": count for (classes, channels), count in one.parameters.items()}


def _parameters(one: Any) -> str:
    count = one.parameters.get((10, 3))
    return f"{count:,}" if count else "-"
