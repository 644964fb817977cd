"""Objects from other people's code, named as `python:package.module:attribute`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, TypeGuard

from kdeploy.errors import UserError, nearest


def load_object(reference: str) -> Any:
    """Import what `python:package.module:attribute` names; the current folder is searched too.

    Raises a UserError where the module or the attribute is not to be found. What the module itself raises
    while it is imported is the user's own traceback and passes through.
    """
    scheme, _, rest = reference.partition(":")
    module_name, _, attribute = rest.partition(":")
    if scheme != "python" or not attribute or not all(part.isidentifier() for part in module_name.split(".")):
        raise UserError(f"{reference!r} must be written python:package.module:name.")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(f"{reference}: there is no module {error.name!r} here. Is its folder on PYTHONPATH?") from None
    try:
        return getattr(module, attribute)
    except AttributeError:
        known = [name for name in vars(module) if not name.startswith("_")]
        raise UserError(
            f"{reference}: the module {module_name} has no {attribute!r}.{nearest(attribute, known)}"
        ) from None


def is_subclass(value: object, base: type) -> TypeGuard[type[Any]]:
    """Whether `value` is a class derived from `base`; Python 3.10 takes `list[int]` for a class, too."""
    try:
        return issubclass(value, base)  # type: ignore[arg-type]
    except TypeError:
        return False
