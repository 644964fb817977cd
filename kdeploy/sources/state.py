"""What changes when a file does, so that pixels decoded from it are never taken for those of another.

Size, modification time, change time and inode, as Git's index has them, and the name. A program can set a file's
modification time back (`cp -p`, `rsync -t`); its change time it cannot, so that no rewritten file passes for the old
one. A copied or moved file counts as another, which costs no more than decoding it once again. What changed in the
last two seconds may change once more within one tick of its file system's clock: it has no state to rely on yet.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdeploy.artifacts import sha256_json

SETTLED_NS = 2_000_000_000
"""The coarsest clock of a file system in use (FAT: two seconds)."""


@dataclass(frozen=True)
class State:
    """facts: what tells one content of a file from another; changed_ns: when it last changed, since 1970."""

    facts: tuple[str | int, ...]
    changed_ns: int


def of_file(path: Path) -> State:
    """The state of a file."""
    found = path.stat()
    facts = (path.name, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
    return State(facts, found.st_ctime_ns)


def together(states: Sequence[State], *more: Any) -> str | None:
    """One hash of these states in their order and of what else decides, JSON-able; None where one is too fresh."""
    newest = max((state.changed_ns for state in states), default=0)
    if time.time_ns() - newest < SETTLED_NS:
        return None
    return sha256_json([[state.facts for state in states], more])
