"""One thing that was looked at on a machine."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Finding(BaseModel):
    """One thing looked at."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: Literal["ok", "note", "problem"]
    """note: works, but worth knowing; problem: something that should work does not."""
    what: str
    detail: str
    fix: str | None = None
    """The command, or the advice, that puts it right."""
    source: str | None = None
    """Where it is from that this matters."""
