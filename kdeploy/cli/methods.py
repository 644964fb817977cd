"""`kdeploy methods`: the distillation methods, or one of them."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register


def _complete(incomplete: str) -> list[str]:
    from kdeploy.methods import names

    return [name for name in names() if name.startswith(incomplete)]


def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Explain this method.", autocompletion=_complete)
    ] = None,
    json_: options.JsonOption = None,
) -> None:
    """List the distillation methods with paper, year and options, or explain one with its formula.

    Example: kdeploy methods kd
    """
    from rich.text import Text

    from kdeploy.cli.output import emit
    from kdeploy.cli.tables import plain_table

    if name is not None:
        described = _describe(name)
        emit(json_, {"schema_version": 1, **described}, Text(_explained(name, described)))
        return
    from kdeploy.methods import names

    described_all = [_describe(known) for known in names()]
    rows = [
        (one["name"], str(one["year"]), one["paper"], ", ".join(one["needs"]), _options(one["options"]))
        for one in described_all
    ]
    titles = ("method", "year", "paper", "needs", "options")
    emit(json_, {"schema_version": 1, "methods": described_all}, plain_table(titles, rows))


def register(app: typer.Typer) -> None:
    _register(app, methods, "methods")


def _describe(name: str) -> dict[str, Any]:
    from dataclasses import asdict

    from kdeploy import methods as room
    from kdeploy.errors import missing_extra

    try:
        found = room.find(name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise missing_extra("torch", "train", "kdeploy methods") from None
    needs = ["logits", *(need for need, wanted in asdict(found.needs).items() if wanted)]
    return {
        "name": name,
        "paper": found.paper,
        "year": found.year,
        "formula": found.formula,
        "needs": needs,
        "options": room.options(name),
        "text": inspect.getdoc(found) or "",
    }


def _options(found: dict[str, Any]) -> str:
    return ", ".join(f"{name}={default}" for name, default in found.items())


def _explained(name: str, found: dict[str, Any]) -> str:
    return (
        f"{name} ({found['year']})\n{found['paper']}\n\n{found['formula']}\n\n"
        f"needs: {', '.join(found['needs'])}\noptions: {_options(found['options']) or 'none'}\n\n{found['text']}"
    )
