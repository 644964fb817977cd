"""Published distillation methods, one a file. The catalogue is the folder's listing: no torch to read it.

    import kdeploy
    method = kdeploy.methods.create("kd", temperature=4.0, alpha=0.9)
    loss = method(student, teacher, target)          # student, teacher: kdeploy.methods.Outputs

A method from outside: `python:package.module:Class`, or the entry-point group `kdeploy.methods`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdeploy.errors import UserError, nearest
from kdeploy.plugins import is_subclass, load_object

if TYPE_CHECKING:
    from kdeploy.methods.base import Context, Method, Needs, Outputs, Phase, Shapes

__all__ = ["Context", "Method", "Needs", "Outputs", "Phase", "Shapes", "create", "find", "names"]

_GROUP = "kdeploy.methods"


def __getattr__(name: str) -> Any:
    if name in ("Context", "Method", "Needs", "Outputs", "Phase", "Shapes"):
        return getattr(importlib.import_module("kdeploy.methods.base"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def names() -> list[str]:
    """The names of all methods: the files of this folder but base and the private ones, and what other packages add."""
    files = {path.stem for path in Path(__file__).parent.glob("[!_]*.py")} - {"base"}
    plugins = {entry.name for entry in importlib.metadata.entry_points(group=_GROUP)}
    return sorted({stem.replace("_", "-") for stem in files} | plugins)


def check(name: str) -> None:
    """Raise a UserError where there is no such method; needs no torch."""
    if not name.startswith("python:") and name not in names():
        raise UserError(f"There is no method {name!r}.{nearest(name, names())}")


def find(name: str) -> type[Method]:
    """The class of a method."""
    from kdeploy.methods.base import Method

    check(name)
    if name.startswith("python:"):
        found = load_object(name)
    elif (Path(__file__).parent / f"{name.replace('-', '_')}.py").is_file():
        module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
        found = _defined_in(module, Method)
    else:
        (entry,) = importlib.metadata.entry_points(group=_GROUP, name=name)
        found = entry.load()
    if not is_subclass(found, Method):
        raise UserError(f"{name} is not a distillation method: it must be a class derived from kdeploy.methods.Method.")
    return found


def _defined_in(module: Any, base: type) -> Any:
    """The one public subclass of `base` that `module` itself defines."""
    own = [
        value
        for key, value in vars(module).items()
        if is_subclass(value, base) and value.__module__ == module.__name__ and not key.startswith("_")
    ]
    if len(own) != 1:
        raise TypeError(f"{module.__name__} must define exactly one public method, not {len(own)}")
    return own[0]


def options(name: str) -> dict[str, Any]:
    """The options of a method with their defaults."""
    parameters = inspect.signature(find(name).__init__).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def create(name: str, **chosen: Any) -> Method:
    """Make a method with these options; an unknown option is a UserError that names the nearest."""
    known = options(name)
    for option in chosen:
        if option not in known:
            raise UserError(f"The method {name} has no option {option!r}.{nearest(option, known)}")
    return find(name)(**chosen)
