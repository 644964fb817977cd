"""A board's profile: a YAML file in which every line says where it is from."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    return text


class Line(BaseModel):
    """Something that is said of a board. source: a page, or the command that measures it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(min_length=1)


class Recognised(BaseModel):
    """By what a machine is known to be this board: all that is given must hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    board: Annotated[str, AfterValidator(_pattern)] | None = None
    """A regular expression for the beginning of the name in the device tree."""
    architecture: str | None = None
    any_of: tuple[str, ...] = ()
    """Instruction sets of which it has at least one; names as in `/proc/cpuinfo`."""
    none_of: tuple[str, ...] = ()


class Use(Line):
    """An engine in a precision that suits the board; the best stand first."""

    engine: str
    precision: str
    scheme: str | None = None
    """Of int8."""


class Threads(Line):
    count: int = Field(ge=1)


class Check(Line):
    """What has to hold before anything is measured."""

    what: Literal["governor", "power mode", "throttling", "temperature"]
    wanted: tuple[str, ...] = ()
    """Of governor and power mode: which will do."""
    below_c: float | None = None
    """Of temperature."""
    fix: str
    """What to type, or to do."""


class Warned(Line):
    says: str


class Board(BaseModel):
    """What suits a board, and what to look at on it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    about: str
    recognised_by: Recognised
    use: tuple[Use, ...] = Field(min_length=1)
    threads: Threads
    checks: tuple[Check, ...] = ()
    warnings: tuple[Warned, ...] = ()

    @property
    def engines(self) -> list[str]:
        """Each once, the best first."""
        return list(dict.fromkeys(one.engine for one in self.use))

    @property
    def precisions(self) -> list[str]:
        """Each once, the best first."""
        return list(dict.fromkeys(one.precision for one in self.use))

    @property
    def scheme(self) -> str | None:
        """The int8 scheme; None: it has none of its own."""
        return next((one.scheme for one in self.use if one.scheme is not None), None)
