"""What all parts of it share."""

import errno
import json
import os
from pathlib import Path
from typing import Any, Dict

CHUNK = 1 << 20
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)
"""What a disk answers that is full, may not be written, or is broken."""


class Refused(Exception):
    """What cannot be done here: a word for the other side, and details."""

    def __init__(self, kind: str, **details: Any) -> None:
        super().__init__(kind)
        self.answer = {"error": kind, **details}


def inside(path: str) -> Path:
    """A path that stays in its folder. Raises Refused for another."""
    found = Path(path)
    if found.is_absolute() or ".." in found.parts:
        raise Refused("outside", path=path)
    return found


def read_json(path: Path) -> Dict[str, Any]:
    """A file's object; empty where there is none, or nothing that is one."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return dict(found) if isinstance(found, dict) else {}


def write(handle: int, data: bytes) -> None:
    """Write all of it to a file descriptor."""
    while data:
        data = data[os.write(handle, data) :]
