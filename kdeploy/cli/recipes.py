"""`kdeploy recipes`: the shipped recipes, one of them, or the schema."""

from __future__ import annotations

from typing import Annotated

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Print this recipe.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of recipes, for editors.")] = False,
    json_: options.JsonOption = None,
) -> None:
    """List the shipped recipes, print one, or print the schema that editors complete from.

    Example: kdeploy recipes quickstart > mine.yaml
    """
    from kdeploy.cli.output import emit
    from kdeploy.cli.tables import plain_table
    from kdeploy.recipe import catalogue

    if schema:
        import json

        from kdeploy.recipe.schema import Recipe

        typer.echo(json.dumps(Recipe.model_json_schema(), indent=2))
    elif name is not None:
        typer.echo(catalogue.find(name).read_text(encoding="utf-8"), nl=False)
    else:
        found = [(name, catalogue.about(name)) for name in catalogue.names()]
        payload = {"schema_version": 1, "recipes": [{"name": name, "about": about} for name, about in found]}
        emit(json_, payload, plain_table(("recipe", "what it shows"), found))


def register(app: typer.Typer) -> None:
    _register(app, recipes, "recipes")
