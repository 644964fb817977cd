"""Runtimes, one a file: the catalogue is this folder's listing.

An engine's file holds one subclass of `base.Engine` whose `name` is the file's own. Files that begin with an
underscore are private and no engines.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from kdeploy.engines._checks import in_precision
from kdeploy.engines._folder import read_manifest, write_manifest
from kdeploy.engines._options import parse
from kdeploy.engines.base import Engine, Precision, Session
from kdeploy.errors import Unavailable, UserError, nearest
from kdeploy.plugins import is_subclass

__all__ = ["check", "find", "in_precision", "names", "open_engine", "read_manifest", "require", "write_manifest"]


def names() -> list[str]:
    """The engines that kdeploy knows, installed or not, sorted."""
    return sorted(
        module.name
        for module in pkgutil.iter_modules(__path__)
        if module.name != "base" and not module.name.startswith("_")
    )


def find(name: str) -> Engine:
    """The engine of this name; its runtime is not imported. Raises UserError for an unknown name."""
    if name not in names():
        raise UserError(f"There is no engine {name!r}.{nearest(name, names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    classes = [value for value in vars(module).values() if is_subclass(value, Engine)]
    engine: Engine = next(found for found in classes if getattr(found, "name", None) == name)()
    return engine


def check(name: str, precision: str, options: Mapping[str, Any]) -> None:
    """Raise UserError for an engine, a precision of it or an option that does not exist; no runtime is imported."""
    engine = find(name)
    if precision not in engine.precisions:
        known = ", ".join(known for known in get_args(Precision) if known in engine.precisions)
        raise UserError(f"The engine {name} runs no {precision}, only {known}.")
    parse(engine.options, options, name)


def require(engine: Engine) -> None:
    """Raise Unavailable, with the command that installs it, where the engine's runtime can't be used here."""
    found = engine.available()
    if not found.ok:
        remedy = f" Type: {found.install}" if found.install else ""
        raise Unavailable(f"The engine {engine.name} can't be used here: {found.reason}.{remedy}")


def open_engine(folder: Path, *, threads: int) -> Session:
    """Verify an engine folder against its manifest and open it with this many threads.

    Raises UserError where the folder is not as its manifest says, Unavailable where the runtime is missing.
    """
    manifest = read_manifest(folder)
    engine = find(manifest.engine)
    require(engine)
    return engine.open(folder, manifest, threads)
