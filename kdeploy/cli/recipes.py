"""`kdeploy recipes`: the shipped recipes, one of them, or the schema."""

from __future__ import annotations

from typing import Annotated

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Print this recipe.", autocompletion=options.complete_recipe),
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of recipes, for editors.")] = False,
    json_: options.JsonOption = None,
) -> None:
    """List the shipped recipes, print one, or print the schema that editors complete from.

    Example: kdeploy recipes quickstart > mine.yaml
    """
    import json

    from kdeploy.cli.output import emit, write
    from kdeploy.cli.recipe_list import listing
    from kdeploy.errors import UserError
    from kdeploy.recipe import catalogue
    from kdeploy.recipe.loading import read_yaml
    from kdeploy.recipe.schema import Recipe

    if schema:
        if name is not None or json_ is not None:
            raise UserError("--schema prints the schema of all recipes, as JSON already: leave out NAME and --json.")
        write(json.dumps(Recipe.model_json_schema(), indent=2))
    elif name is None:
        emit(json_, *listing())
    else:
        file = catalogue.find(name)
        content, _ = read_yaml(file)
        text = file.read_text(encoding="utf-8").rstrip("\n")
        emit(json_, {"schema_version": 1, "name": name, "recipe": content}, text)


def register(app: typer.Typer) -> None:
    _register(app, recipes, "recipes")
