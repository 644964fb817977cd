"""Procedures: what is trained, on what, in which order. One a file, over the one loop."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

from kdeploy.errors import UserError, missing_extra, nearest
from kdeploy.recipe.procedures import names

if TYPE_CHECKING:
    from kdeploy.training.procedures.base import Procedure


def check(name: str) -> None:
    """Raise a UserError where there is no such procedure; needs no torch."""
    if name not in names():
        raise UserError(f"There is no procedure {name!r}.{nearest(name, names())}")


def find(name: str) -> Procedure:
    """The procedure of this name: the object PROCEDURE of its file."""
    check(name)
    require_torch()
    procedure: Procedure = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").PROCEDURE
    return procedure


def require_torch() -> None:
    """Raise Unavailable, with the command that installs it, where torch is not to be had."""
    if importlib.util.find_spec("torch") is None:
        raise missing_extra("torch", "train", "Training")
