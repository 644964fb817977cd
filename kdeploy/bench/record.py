"""What every part of a measurement's schema is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A part of a measurement: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Percentile(Record):
    """A latency percentile with its 99 % distribution-free interval from order statistics."""

    value_ms: float
    low_ms: float
    high_ms: float
