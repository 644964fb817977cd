"""Values of a machine's description as text."""

from __future__ import annotations

from typing import Any

from kdeploy.report import figures


def described(value: Any) -> str:
    """A value as text; nested ones in one line."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return figures.significant(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {described(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(described(inner) for inner in value) or "none"
    return str(value)
