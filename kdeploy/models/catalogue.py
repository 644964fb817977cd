"""Which networks there are, and how one is made from its part of a recipe.

The zoo is listed by reading the source of its files, not by importing them: that costs no torch.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeVar

from kdeploy import plugins
from kdeploy.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import nn

    from kdeploy.recipe.schema import NetworkSpec

_ZOO = "kdeploy.models.zoo"
_FOREIGN = ("torchvision", "timm", "python")
_Factory = TypeVar("_Factory", bound=Callable[..., Any])


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a zoo network without building it.

    family: the file it is defined in; parameters: (classes, channels) to the count of trainable parameters
    at width 1 that agrees with the published one; options: what `options` of a recipe's network may hold.
    """

    name: str
    paper: str
    family: str
    about: str
    parameters: Mapping[tuple[int, int], int]
    options: tuple[str, ...]


def network(*, paper: str, parameters: Mapping[int, int]) -> Callable[[_Factory], _Factory]:
    """Mark a factory as a network of the zoo.

    The catalogue reads the arguments from the source, so both are literals, or names of module-level literals.

    Args:
        paper: authors, title, year and where to find it.
        parameters: trainable parameters for colour images, by the number of classes.
    """
    return lambda factory: factory


def names() -> list[str]:
    """The names of the zoo's networks, sorted; needs no torch."""
    return sorted(_zoo())


def describe(name: str) -> ModelInfo:
    """What is known of the zoo network `name`; needs no torch. An unknown name is a UserError."""
    if name not in _zoo():
        raise UserError(f"There is no network {name!r} in the zoo.{nearest(name, names())}")
    return _zoo()[name]


def check(name: str) -> None:
    """Raise a UserError unless `name` names a network.

    A zoo name is looked up without torch; `torchvision:NAME` and `timm:NAME` are looked up in those libraries;
    of `python:package.module:factory` the factory is imported.
    """
    scheme, colon, rest = name.partition(":")
    if not colon:
        if name not in _zoo():
            raise UserError(
                f"There is no network {name!r}.{nearest(name, names())} Networks from elsewhere are written "
                "torchvision:NAME, timm:NAME or python:package.module:factory."
            )
    elif scheme not in _FOREIGN:
        raise UserError(f"{name!r}: there is no kind of network {scheme!r}.{nearest(scheme, _FOREIGN)}")
    elif scheme == "python":
        plugins.load_object(name)
    else:
        importlib.import_module(f"kdeploy.models.{scheme}_models").check(rest)


def create(spec: NetworkSpec, *, classes: int, channels: int = 3) -> nn.Module:
    """Build the network that `spec` names, from `[B, channels, H, W]` to logits `[B, classes]`.

    Zoo networks start from random weights (torch's generator) and take `spec.width`. `torchvision:` and `timm:`
    pass `spec.options` on, so `{pretrained: true}` starts from their published weights. A `python:` factory is
    called with `classes`, `channels` and the options as keywords. `spec.checkpoint` is not read here: see
    `kdeploy.models.checkpoints.load_into`.

    Raises UserError for an unknown name or option, or a width on a network that is not the zoo's.
    """
    check(spec.model)
    scheme, colon, rest = spec.model.partition(":")
    if not colon:
        factory = getattr(importlib.import_module(f"{_ZOO}.{_zoo()[spec.model].family}"), spec.model)
        _check_options(spec, factory)
        return _module(spec, factory(classes=classes, channels=channels, width=spec.width, **spec.options))
    if spec.width != 1.0:
        raise UserError(f"{spec.model} is not of the zoo, so its width cannot be {spec.width:g}: leave width out.")
    if scheme == "python":
        factory = plugins.load_object(spec.model)
        _check_options(spec, factory)
        return _module(spec, factory(classes=classes, channels=channels, **spec.options))
    library = importlib.import_module(f"kdeploy.models.{scheme}_models")
    return _module(spec, library.create(rest, classes=classes, channels=channels, options=spec.options))


def architecture_options(model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that shape a network, without those that only choose its published starting weights."""
    if model.startswith(("torchvision:", "timm:")):
        return {key: value for key, value in options.items() if key not in ("pretrained", "weights")}
    return dict(options)


def _check_options(spec: NetworkSpec, factory: Callable[..., Any]) -> None:
    accepted = inspect.signature(factory).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values()):
        return
    for needed in ("classes", "channels"):
        if needed not in accepted:
            raise UserError(f"{spec.model} must take {needed} as a keyword: it is called with classes and channels.")
    options = sorted(set(accepted) - {"classes", "channels", "width"})
    for key in spec.options:
        if key not in options:
            known = nearest(key, options) or " It has none."
            raise UserError(f"{spec.model} has no option {key!r}.{known}")


def _module(spec: NetworkSpec, made: object) -> nn.Module:
    from torch import nn

    if not isinstance(made, nn.Module):
        raise UserError(f"{spec.model} returned a {type(made).__name__}; it must return a torch.nn.Module.")
    return made


@cache
def _zoo() -> dict[str, ModelInfo]:
    files = [file for file in resources.files(_ZOO).iterdir() if file.name.endswith(".py")]
    return {
        info.name: info for file in files for info in _read_family(file.name[:-3], file.read_text(encoding="utf-8"))
    }


def _read_family(family: str, source: str) -> list[ModelInfo]:
    """The networks a zoo file defines, from its syntax tree."""
    body = ast.parse(source).body
    constants = {
        statement.targets[0].id: statement.value
        for statement in body
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    }

    def literal(node: ast.expr) -> Any:
        return ast.literal_eval(constants[node.id] if isinstance(node, ast.Name) else node)

    found = []
    for function in [statement for statement in body if isinstance(statement, ast.FunctionDef)]:
        for mark in function.decorator_list:
            if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == network.__name__:
                facts = {keyword.arg: literal(keyword.value) for keyword in mark.keywords}
                counts = {(classes, 3): count for classes, count in facts["parameters"].items()}
                about = (ast.get_docstring(function) or "").partition("\n")[0]
                options = tuple(argument.arg for argument in function.args.kwonlyargs)
                found.append(ModelInfo(function.name, facts["paper"], family, about, counts, options))
    return found
