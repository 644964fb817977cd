"""`kdeploy procedures`: who learns from whom, or one of them explained."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register

if TYPE_CHECKING:
    from rich.console import RenderableType


def _complete(incomplete: str) -> list[str]:
    from kdeploy.recipe.procedures import names

    return [name for name in names() if name.startswith(incomplete)]


def procedures(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Explain this one.", autocompletion=_complete)
    ] = None,
    json_: options.JsonOption = None,
) -> None:
    """List the procedures, which say who learns from whom, or explain one with its options.

    Example: kdeploy procedures assistants
    """
    from kdeploy.cli.output import emit
    from kdeploy.recipe.procedures import describe, names
    from kdeploy.training import procedures as room

    if name is None:
        found = [{"name": known, "about": describe(known).about} for known in names()]
        emit(json_, {"schema_version": 1, "procedures": found}, _listed(found))
        return
    described = {
        "name": name,
        "about": describe(name).about if name in names() else "",
        "text": inspect.getdoc(room.find(name).__class__) or "",
        "options": _options(name),
    }
    emit(json_, {"schema_version": 1, **described}, _explained(described))


def register(app: typer.Typer) -> None:
    _register(app, procedures, "procedures")


def _options(name: str) -> list[dict[str, Any]]:
    """What `distill.procedure_options` may hold."""
    from kdeploy.recipe.procedures import describe

    fields = describe(name).options.model_fields
    return [
        {"name": key, "default": field.get_default(call_default_factory=True), "about": field.description or ""}
        for key, field in fields.items()
    ]


def _listed(found: list[dict[str, Any]]) -> RenderableType:
    from kdeploy.cli.tables import plain_table

    return plain_table(("procedure", "what is trained"), [(one["name"], one["about"]) for one in found])


def _explained(found: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from kdeploy.cli.docstrings import reflow
    from kdeploy.cli.tables import facts

    lines = [("procedure", found["name"]), ("trains", found["about"])]
    options = [(one["name"], f"{json.dumps(one['default'])}: {one['about']}") for one in found["options"]]
    return Group(facts([*lines, *(options or [("options", "none")])]), Text(""), reflow(found["text"]))
