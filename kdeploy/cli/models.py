"""`kdeploy models`: the zoo, or one network of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register

if TYPE_CHECKING:
    from rich.console import RenderableType


def complete_model(incomplete: str) -> list[str]:
    """The zoo's names, for the shell."""
    from kdeploy.models import names

    return [name for name in names() if name.startswith(incomplete)]


def models(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Build this one and count it: a zoo name, torchvision:NAME, timm:NAME or python:module:factory.",
            autocompletion=complete_model,
        ),
    ] = None,
    shape: Annotated[
        str, typer.Option("--shape", metavar="CxHxW", help="Channels, height and width of the input.")
    ] = "3x32x32",
    classes: Annotated[int, typer.Option("--classes", metavar="N", min=2, help="Number of classes.")] = 10,
    taps: Annotated[
        bool, typer.Option("--taps", help="With NAME: the stages that methods on features tap, with their shapes.")
    ] = False,
    json_: options.JsonOption = None,
) -> None:
    """List the zoo with papers and counts, or count one network's parameters and multiply-accumulates.

    Example: kdeploy models resnet8 --shape 3x32x32
    """
    from kdeploy.cli.output import emit, talking
    from kdeploy.errors import UserError

    size = parse_shape(shape)
    if name is None and taps:
        raise UserError("--taps shows the stages of one network. Type: kdeploy models NAME --taps")
    with talking(brief=True):
        payload = _zoo(size[0], classes) if name is None else _one(name, size, classes, taps)
    emit(json_, {"schema_version": 1, **payload}, _listed(payload) if name is None else _described(payload))


def register(app: typer.Typer) -> None:
    _register(app, models, "models")


def parse_shape(text: str) -> tuple[int, int, int]:
    """`3x32x32` to (channels, height, width)."""
    from kdeploy.errors import UserError

    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"--shape {text!r} must be written CxHxW, for example 3x32x32.")
    channels, height, width = (int(part) for part in parts)
    return channels, height, width


def _zoo(channels: int, classes: int) -> dict[str, Any]:
    """All networks of the zoo; the count of one that was published with other figures is None without torch."""
    import importlib.util

    from kdeploy import events
    from kdeploy import models as room

    known = [room.describe(name) for name in sorted(room.names(), key=_natural)]
    counts = {one.name: one.parameters.get((classes, channels)) for one in known}
    missing = [name for name, count in counts.items() if count is None]
    if importlib.util.find_spec("torch") is None:
        if missing:
            events.warn("Some networks must be built to be counted, which needs torch: pip install 'kdeploy[train]'")
    else:
        from kdeploy.models.counting import parameters_of

        with events.task("count", len(missing)) as bar:
            for name in missing:
                counts[name] = parameters_of(name, classes=classes, channels=channels)
                bar.advance()
    listed = [
        {
            "name": one.name,
            "parameters": counts[one.name],
            "published": {
                f"{classes} classes, {channels} channels": n for (classes, channels), n in one.parameters.items()
            },
            "about": one.about,
            "paper": one.paper,
            "family": one.family,
        }
        for one in known
    ]
    return {"classes": classes, "channels": channels, "models": listed}


def _listed(found: dict[str, Any]) -> RenderableType:
    from kdeploy.cli.tables import entry, plain_table

    rows = [
        (one["name"], _text(one["parameters"]), entry(one["about"], one["paper"].partition(", http")[0]))
        for one in found["models"]
    ]
    titles = ("model", "parameters", "about")
    table = plain_table(titles, rows, right=titles[1:2])
    table.caption = f"Parameters for {found['classes']} classes and {found['channels']} channels."
    table.caption_justify = "left"
    return table


def _one(name: str, shape: tuple[int, int, int], classes: int, taps: bool) -> dict[str, Any]:
    """Build one network and run it once."""
    from kdeploy import models as room
    from kdeploy.cli.execution import require_torch
    from kdeploy.errors import UserError
    from kdeploy.recipe.schema import NetworkSpec

    room.check(name)
    require_torch("kdeploy models NAME")
    from kdeploy.models.counting import count
    from kdeploy.models.taps import find_classifier, find_taps

    network = room.create(NetworkSpec(model=name), classes=classes, channels=shape[0])
    try:
        counts = count(network, shape)
    except (AssertionError, RuntimeError, ValueError) as error:  # whatever somebody's network makes of it
        why = str(error).partition("\n")[0].rstrip(".")
        raise UserError(f"{name} does not take an input of {_shape(shape)}: {why}. Try another --shape.") from None
    described: dict[str, Any] = {"name": name, "shape": list(shape), "classes": classes, **asdict(counts)}
    if name in room.names():
        described["paper"] = room.describe(name).paper
    if taps:
        described["taps"] = [{"path": tap.path, "shape": list(tap.shape)} for tap in find_taps(network, shape)]
        classifier = find_classifier(network, shape)
        described["classifier"] = {"path": classifier.path, "embedding": classifier.shape[0]}
    return described


def _described(found: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from kdeploy.cli.tables import facts, plain_table

    lines = [
        ("model", found["name"]),
        ("input", _shape(found["shape"])),
        ("classes", str(found["classes"])),
        ("parameters", _text(found["parameters"])),
        ("MACs", f"{found['macs']:,} for one image"),
    ]
    if "paper" in found:
        lines.append(("paper", found["paper"]))
    if "taps" not in found:
        return facts(lines)
    taps = [(tap["path"], _shape(tap["shape"])) for tap in found["taps"]]
    taps.append((found["classifier"]["path"], f"{found['classifier']['embedding']} (the embedding that goes in)"))
    return Group(facts(lines), Text(""), plain_table(("tap", "shape"), taps), Text(""), Text(_in_a_recipe(found)))


def _in_a_recipe(found: dict[str, Any]) -> str:
    """How these taps, or others, are named by hand."""
    paths = ", ".join(tap["path"] for tap in found["taps"])
    return (
        "These are taken without being named. By hand, in a recipe, as many of both networks, pair by pair:\n"
        f"  distill: {{taps: {{student: [{paths}], teacher: [...]}}}}"
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """So that resnet8 comes before resnet110."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _shape(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape)


def _text(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"
