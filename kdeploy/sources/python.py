"""The user's own function, which gives a `kdeploy.sources.Source`."""

from __future__ import annotations

import inspect
from pathlib import Path

from kdeploy.errors import UserError
from kdeploy.plugins import load_object
from kdeploy.recipe.schema import DataSpec
from kdeploy.sources.base import ImageSet, Source

USAGE = "python:package.module:function"


def load(spec: DataSpec, name: str, base: Path) -> Source:
    """Call the function with `data.options` as its arguments; what it raises itself passes through."""
    if spec.root is not None:
        raise UserError(f"The source {spec.source} takes no data.root; pass the folder in data.options.")
    function = load_object(spec.source)
    if not callable(function):
        raise UserError(f"{spec.source} is not a function, but {type(function).__name__}.")
    try:
        inspect.signature(function).bind(**spec.options)
    except TypeError as error:
        raise UserError(f"{spec.source} cannot be called with data.options {sorted(spec.options)}: {error}.") from None
    source = function(**spec.options)
    if not isinstance(source, Source):
        raise UserError(f"{spec.source} must return a kdeploy.sources.Source, not {type(source).__name__}.")
    if not isinstance(source.train, ImageSet) or not isinstance(source.test, ImageSet | None):
        raise UserError(f"{spec.source}: train must be a kdeploy.sources.ImageSet, and test one or None.")
    return source
