"""Kinds of meters, one a file: the catalogue is this folder's listing.

A source's file holds one subclass of `energy.base.Source` whose `name` is the file's own. Files that begin with an
underscore are private and no sources.
"""

from __future__ import annotations

import importlib
import pkgutil

from kdeploy.bench.energy.base import Source
from kdeploy.plugins import is_subclass


def names() -> list[str]:
    """The sources that kdeploy knows, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def find(name: str) -> Source:
    """The source of this name, which must be one of `names`."""
    module = importlib.import_module(f"{__name__}.{name}")
    classes = [value for value in vars(module).values() if is_subclass(value, Source)]
    source: Source = next(found for found in classes if getattr(found, "name", None) == name)()
    return source
