"""How a function becomes a verb."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class Interrupted(BaseException):
    """Ctrl-C, or a signal that asks us to end. Of our own, because Typer's versions differ in what they make of
    KeyboardInterrupt."""

    def __init__(self, exit_status: int = 130) -> None:
        super().__init__("interrupted")
        self.exit_status = exit_status


class Verb(TyperCommand):
    """A verb whose help doesn't show `<bool>` behind a flag, as if it took a value."""

    def get_params(self, ctx: Any) -> Any:
        return _plain_flags(super().get_params(ctx))


class Verbs(TyperGroup):
    """The verbs together; see `Verb`."""

    def get_params(self, ctx: Any) -> Any:
        return _plain_flags(super().get_params(ctx))


def register(app: typer.Typer, function: Callable[..., Any], name: str) -> None:
    """Add `function` to the command line as the verb `name`; its docstring is the help text."""

    @functools.wraps(function)
    def verb(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except (KeyboardInterrupt, typer.Abort):
            raise Interrupted from None

    app.command(name, cls=Verb, help=_unwrapped(inspect.getdoc(function) or ""))(verb)


def _plain_flags(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = ""
    return parameters


def _unwrapped(text: str) -> str:
    """Each paragraph in one line: Typer wraps it to the terminal, but would keep the breaks of the source as well."""
    return "\n\n".join(paragraph.replace("\n", " ") for paragraph in text.split("\n\n"))
