"""Where a verb runs: this machine, a device over SSH, a container.

A kind of target is a file in `kinds/`, whose name is what stands before the colon; it has `USAGE`, how a target of it
is written, and `parse`, which takes all of it. A target runs the same verb on the device; engines know nothing of it.
"""

from __future__ import annotations

import importlib
import pkgutil
import re

from kdeploy.errors import UserError, nearest
from kdeploy.targets import kinds
from kdeploy.targets.base import Target

__all__ = ["LOCAL", "Target", "names", "parse", "usages"]

LOCAL = "local"


def names() -> list[str]:
    """The kinds of targets, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(kinds.__path__))


def usages() -> list[str]:
    """How a target of each kind is written; this machine first."""
    return [LOCAL, *(importlib.import_module(f"{kinds.__name__}.{name}").USAGE for name in names())]


def parse(text: str) -> Target | None:
    """The target that is meant; None for this machine. Raises UserError where it is none."""
    if text == LOCAL:
        return None
    kind, colon, _ = text.partition(":")
    if not colon or kind not in names():
        guess = nearest(kind, [LOCAL, *names()]) if colon and "@" not in kind else ""
        if re.fullmatch(r"\w[\w.-]*@\w[\w.-]*(:\d*)?", text):  # as ssh itself takes it
            guess = f" Did you mean 'ssh://{text}'?"
        raise UserError(f"{text!r} is no target.{guess} A target is {', '.join(usages())}.")
    found: Target = importlib.import_module(f"{kinds.__name__}.{kind}").parse(text)
    return found
