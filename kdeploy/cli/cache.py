"""`kdeploy cache`: what is kept because making it again takes time, and how to be rid of it."""

from __future__ import annotations

from typing import Annotated

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register

_UNITS = (("days", 86400), ("hours", 3600), ("minutes", 60))


def cache(
    action: Annotated[
        str | None, typer.Argument(metavar="clear", help="Remove everything that is kept; runs keep what they hold.")
    ] = None,
    json_: options.JsonOption = None,
) -> None:
    """List decoded images and teachers' outputs that are kept for the next run, or clear them.

    They lie in $KDEPLOY_CACHE, else $XDG_CACHE_HOME/kdeploy, else ~/.cache/kdeploy. Downloaded data sets stay.

    Example: kdeploy cache clear
    """
    import time
    from datetime import datetime, timezone

    from kdeploy import caches
    from kdeploy.cli.output import emit
    from kdeploy.cli.tables import facts, plain_table
    from kdeploy.errors import UserError, nearest
    from kdeploy.report import figures

    root = str(caches.cache_root())
    if action == "clear":
        freed = caches.clear()
        payload = {"schema_version": 1, "folder": root, "size_bytes": freed}
        emit(json_, payload, facts([("cleared", f"{root}, {figures.size(freed)}")]))
        return
    if action is not None:
        raise UserError(f"`kdeploy cache` cannot {action!r}.{nearest(action, ['clear'])}")
    held = caches.entries()
    found = [
        {
            "kind": entry.kind,
            "path": str(entry.folder),
            "size_bytes": entry.size_bytes,
            "used_at": datetime.fromtimestamp(entry.used_s, timezone.utc).isoformat(timespec="seconds"),
        }
        for entry in held
    ]
    now = time.time()
    rows = [(entry.kind, str(entry.folder), figures.size(entry.size_bytes), _ago(now - entry.used_s)) for entry in held]
    titles = ("kind", "folder", "size", "last used")
    table = plain_table(titles, rows, right=("size",)) if rows else f"Nothing is kept in {root}."
    emit(json_, {"schema_version": 1, "folder": root, "entries": found}, table)


def register(app: typer.Typer) -> None:
    _register(app, cache, "cache")


def _ago(seconds: float) -> str:
    """ "3 days ago": the largest unit of which there are two or more."""
    for unit, length in _UNITS:
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit} ago"
    return "just now"
