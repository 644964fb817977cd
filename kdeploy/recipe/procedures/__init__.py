"""What a recipe must know of a procedure without torch: its options and the networks that it leaves. One a file.

What the procedure does is in `training/procedures/`, in a file of the same name.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from kdeploy.errors import nearest

if TYPE_CHECKING:
    from kdeploy.recipe.procedures.base import Description
    from kdeploy.recipe.schema import Recipe

_NOT_PROCEDURES = {"__init__", "base"}


def names() -> list[str]:
    """The names of all procedures."""
    files = {path.stem for path in Path(__file__).parent.glob("*.py")} - _NOT_PROCEDURES
    return sorted(stem.replace("_", "-") for stem in files)


def describe(name: str) -> Description:
    """What is known of a procedure that is there: the object DESCRIPTION of its file."""
    description: Description = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").DESCRIPTION
    return description


def opens_training_images(recipe: Recipe) -> bool:
    """Whether the procedure of a recipe may; where not, its data are the test images alone."""
    return describe(recipe.distill.procedure).training_images


def filled(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a procedure with nothing left to a default; a ValueError for what does not fit."""
    kind = describe(name).options
    unknown = [key for key in options if key not in kind.model_fields]
    if unknown:
        known = ", ".join(kind.model_fields) or "none"
        hint = nearest(unknown[0], kind.model_fields)
        raise ValueError(f"the procedure {name} has no option {unknown[0]!r} (its options: {known}).{hint}")
    try:
        return kind.model_validate(options).model_dump(mode="json")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the options"
        raise ValueError(f"{place} of the procedure {name}: {first['msg'].removeprefix('Value error, ')}") from None
