"""Reading the kernel's small files, with reasons that a user can act on."""

from __future__ import annotations

import os
from pathlib import Path

from kdeploy.bench.energy.base import NotMeasured


def text(path: Path) -> str:
    """The content of a file without the white space around it. Raises NotMeasured."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip().rstrip("\0")
    except PermissionError:
        raise NotMeasured(f"{path} can't be read by this user; until the next boot: sudo chmod a+r {path}") from None
    except OSError as error:
        raise NotMeasured(f"{path}: {os.strerror(error.errno) if error.errno else error}") from None


def number(path: Path) -> int:
    """The integer in a file. Raises NotMeasured."""
    content = text(path)
    try:
        return int(content)
    except ValueError:
        raise NotMeasured(f"{path} holds {content!r}, not a number") from None


def text_or_none(path: Path) -> str | None:
    """The content of a file that need not be there."""
    try:
        return text(path)
    except NotMeasured:
        return None
