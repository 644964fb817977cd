"""Where kdeploy keeps what it could make again: decoded images, a teacher's outputs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """`$KDEPLOY_CACHE`, else `$XDG_CACHE_HOME/kdeploy`, else `~/.cache/kdeploy`. An empty variable counts as unset."""
    if own := os.environ.get("KDEPLOY_CACHE"):
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "kdeploy"


def cache_folder(kind: str) -> Path:
    """The folder of one kind of cached thing, such as "images"; it need not exist yet."""
    return cache_root() / kind
