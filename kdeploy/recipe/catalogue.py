"""The recipes that come with kdeploy, found by name from any folder."""

from __future__ import annotations

import difflib
from pathlib import Path

from kdeploy.errors import UserError
from kdeploy.recipe import matrix
from kdeploy.recipe.matrix import Cell, Matrix

RecipeFile = Path | Cell
"""What a recipe is read from: a file, or a cell of a matrix, which reads like one."""


def shipped() -> Path:
    """The folder of the shipped recipes: inside the wheel, or `recipes/` of a checkout."""
    packed = Path(__file__).parent / "shipped"
    return packed if packed.is_dir() else Path(__file__).parents[2] / "recipes"


def names() -> list[str]:
    """The names of all shipped recipes: `cifar10/resnet56-resnet8-kd`, and `cifar100/resnet56-resnet20/dkd`."""
    return sorted([*single(), *(name for found in matrices() for name in found.names())])


def single() -> list[str]:
    """The names of the shipped recipes that are a file of their own."""
    folder = shipped()
    files = (path for path in folder.rglob("*.yaml") if path.name != matrix.FILE)
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in files)


def matrices() -> list[Matrix]:
    """The files that stand for many recipes each."""
    return matrix.find(shipped())


def about(name: str) -> str:
    """The recipe's own sentence about itself."""
    from kdeploy.recipe.loading import read_yaml

    for found in matrices():
        if name in found.names():
            return found.describe(name)
    content, _ = read_yaml(find(name))
    return str(content.get("about", ""))


def find(reference: str) -> RecipeFile:
    """A recipe by its path, or by the name of a shipped one. Raises UserError where it is neither."""
    path = Path(reference)
    if path.is_file():
        return path.resolve()
    if path.suffix in (".yaml", ".yml"):
        raise UserError(f"There is no recipe file {reference}. `kdeploy recipes` lists the shipped ones.")
    if reference in single():
        return shipped() / f"{reference}.yaml"
    for found in matrices():
        if reference in found.names():
            return found.cell(reference)
        if reference.startswith(f"{found.folder}/"):
            raise UserError(found.refusal(reference))
    close = difflib.get_close_matches(reference, names(), n=1)
    hint = f"Did you mean {close[0]!r}?" if close else "`kdeploy recipes` lists what there is."
    raise UserError(f"There is no recipe {reference!r}, neither a file nor a shipped one. {hint}")
