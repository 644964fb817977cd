"""The recipes that come with kdeploy, found by name from any folder."""

from __future__ import annotations

from pathlib import Path

from kdeploy.errors import UserError, nearest


def shipped() -> Path:
    """The folder of the shipped recipes: inside the wheel, or `recipes/` of a checkout."""
    packed = Path(__file__).parent / "shipped"
    return packed if packed.is_dir() else Path(__file__).parents[2] / "recipes"


def names() -> list[str]:
    """The names of the shipped recipes, such as `cifar10/resnet56-resnet8-kd`."""
    folder = shipped()
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def about(name: str) -> str:
    """The recipe's own sentence about itself."""
    from kdeploy.recipe.loading import read_yaml

    content, _ = read_yaml(find(name))
    return str(content.get("about", ""))


def find(reference: str) -> Path:
    """The file of a recipe: a path, or the name of a shipped one. Raises UserError where it is neither."""
    path = Path(reference)
    if path.is_file():
        return path.resolve()
    if path.suffix in (".yaml", ".yml"):
        raise UserError(f"There is no recipe file {reference}. `kdeploy recipes` lists the shipped ones.")
    if reference not in names():
        raise UserError(
            f"There is no recipe {reference!r}, neither a file nor a shipped one.{nearest(reference, names())}"
        )
    return shipped() / f"{reference}.yaml"
