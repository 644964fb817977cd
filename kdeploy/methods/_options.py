"""Checks of a method's options: each error is one sentence that names the method, the option and what it takes."""

from __future__ import annotations

import math

from kdeploy.errors import UserError, nearest


def positive(method: str, **values: float) -> None:
    """Each value must be a finite number above 0."""
    for option, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise UserError(f"{method}: {option} must be a number above 0, not {value:g}.")


def not_negative(method: str, **values: float) -> None:
    """Each value must be a finite number, 0 or above."""
    for option, value in values.items():
        if not (value >= 0 and math.isfinite(value)):
            raise UserError(f"{method}: {option} must be 0 or above, not {value:g}.")


def share(method: str, **values: float) -> None:
    """Each value must lie between 0 and 1, ends included."""
    for option, value in values.items():
        if not 0 <= value <= 1:
            raise UserError(f"{method}: {option} must lie between 0 and 1, not {value:g}.")


def whole(method: str, *, least: int, **values: int) -> None:
    """Each value must be a whole number, `least` or above."""
    for option, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(f"{method}: {option} must be a whole number, {least} or above, not {value!r}.")


def choice(method: str, option: str, value: str, choices: tuple[str, ...]) -> None:
    """The value must be one of `choices`."""
    if value not in choices:
        raise UserError(f"{method}: there is no {option} {value!r}.{nearest(str(value), choices)}")
