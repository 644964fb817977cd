"""`kdeploy target`: make a device ready, or leave it as it was."""

from __future__ import annotations

from typing import Annotated

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register


def target(
    action: Annotated[
        str, typer.Argument(metavar="setup|clean", help="Make a device ready, or remove all that we keep on it.")
    ],
    device: Annotated[str, typer.Argument(metavar="TARGET", help="ssh://USER@HOST[:PORT]")],
    extra: Annotated[
        list[str] | None,
        typer.Option("--extra", metavar="NAME", help="Install kdeploy[NAME] too: openvino, onnx …; repeatable."),
    ] = None,
    wheels: Annotated[
        bool, typer.Option("--wheels", help="Carry all packages from here; the device's network is not tried.")
    ] = False,
    json_: options.JsonOption = None,
) -> None:
    """Make a device ready for `--target`, and say what it can run; or remove from it all that we keep there.

    setup makes a virtual environment on the device and installs the device side of this kdeploy: from the package
    index there, and where it reaches none, from wheels that are carried along. Everything lies in one folder,
    ~/.kdeploy-target, which clean removes, with whatever still runs there.

    Example: kdeploy target setup ssh://pi@raspberrypi.local
    """
    from kdeploy import targets
    from kdeploy.errors import UserError, nearest

    place = targets.parse(device)
    if place is None:
        raise UserError("This machine needs no setting up: kdeploy is here.")
    if action == "setup":
        _set_up(place, frozenset(extra or []), wheels, json_)
    elif action == "clean":
        if extra or wheels:
            raise UserError("--extra and --wheels are for setup: clean removes everything.")
        if place.brings_kdeploy:
            raise UserError(f"{place.text} is an image: its container is removed with each run, and nothing stays.")
        _clean(place, json_)
    else:
        raise UserError(f"`kdeploy target` cannot {action!r}.{nearest(action, ['setup', 'clean'])}")


def register(app: typer.Typer) -> None:
    _register(app, target, "target")


def _set_up(place: options.Target, extras: frozenset[str], wheels: bool, json_: str | None) -> None:
    from kdeploy.cli.elsewhere import Luggage, carry_out
    from kdeploy.cli.output import ONLY_JSON, add, talking
    from kdeploy.targets import environment
    from kdeploy.targets.channel import connected

    environment.require_no_image(place)  # before one is started
    with talking(), connected(place) as channel:
        environment.set_up(channel, place, extras, carry=wheels)
    luggage = Luggage()
    words = ["doctor"]
    if json_ == ONLY_JSON:
        words += ["--json", ONLY_JSON]
    elif json_ is not None:
        from pathlib import Path

        words += ["--json", luggage.await_(Path(json_))]
    carry_out(place, words, luggage)
    add(json_, f"Ready:  kdeploy bench ARTIFACT --target {place.text}")


def _clean(place: options.Target, json_: str | None) -> None:
    from kdeploy.cli.output import emit, talking
    from kdeploy.errors import UserError
    from kdeploy.report import figures
    from kdeploy.targets.channel import connected

    with talking(brief=True), connected(place) as channel:
        found = channel.ask("hello", own=place.brings_kdeploy)
        done = channel.ask("clean")
    if done["left"]:
        raise UserError(f"{place.text}: not all of {found['folder']} could be removed. Whose files are in it?")
    payload = {"schema_version": 1, "target": place.text, "folder": found["folder"], "size_bytes": done["size_bytes"]}
    said = f"removed {found['folder']}, {figures.size(done['size_bytes'])}"
    emit(json_, payload, f"{place.text}: {said if done['there'] else 'there was nothing of ours.'}")
