"""How a function becomes a verb."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import typer


class Interrupted(BaseException):
    """Ctrl-C. Of our own, because Typer's versions differ in what they make of KeyboardInterrupt."""


def register(app: typer.Typer, function: Callable[..., Any], name: str) -> None:
    """Add `function` to the command line as the verb `name`; its docstring is the help text."""

    @functools.wraps(function)
    def verb(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except KeyboardInterrupt:
            raise Interrupted from None

    app.command(name)(verb)
