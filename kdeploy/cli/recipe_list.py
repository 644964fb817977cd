"""What `kdeploy recipes` lists: a line for each recipe, and a few for each matrix of them."""

from __future__ import annotations

from kdeploy.cli.tables import Listing, plain_table
from kdeploy.recipe import catalogue
from kdeploy.recipe.matrix import Matrix


def listing() -> Listing:
    """All recipes by name in the JSON; in the table the pairs and the methods of a matrix stand apart."""
    recipes = [{"name": name, "about": catalogue.about(name)} for name in catalogue.names()]
    rows = [(name, catalogue.about(name)) for name in catalogue.single()]
    for matrix in catalogue.matrices():
        rows += _lines(matrix)
    return {"schema_version": 1, "recipes": recipes}, plain_table(("recipe", "what it shows"), rows)


def _lines(matrix: Matrix) -> list[tuple[str, str]]:
    """A matrix in a few lines: what it is, its pairs by group, its methods."""
    return [
        (matrix.pattern, matrix.about),
        *((f"  TEACHER-STUDENT, {group}", "  ".join(pairs)) for group, pairs in matrix.groups.items()),
        ("  METHOD", "  ".join(matrix.methods)),
    ]
