"""The files that are shipped beside this room: templates, styles, the script."""

from __future__ import annotations

from importlib import resources


def packaged(name: str) -> str:
    """The text of a file in `templates/`."""
    return (resources.files("kdeploy.report") / "templates" / name).read_text(encoding="utf-8")
