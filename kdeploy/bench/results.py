"""The schema of a measurement: one JSON file each, raw samples kept, units in the names of fields."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A part of a measurement: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Percentile(Record):
    """A latency percentile with its 99 % distribution-free interval from order statistics."""

    value_ms: float
    low_ms: float
    high_ms: float


class Latency(Record):
    """Closed-loop calls at one batch size, after a warm-up."""

    batch: int
    count: int
    warmup_count: int
    duration_s: float
    p50: Percentile
    """The median; p90 and p99 are MLPerf's early-stopping estimates (`statistics.percentile_estimate`)."""
    p90: Percentile | None
    """None: this many samples cannot support it (p90 wants 64, p99 662)."""
    p99: Percentile | None
    throughput_per_s: float
    """Images a second: batch * count / duration_s."""
    samples_ms: tuple[float, ...]
    """Every call, in order."""


class Accuracy(Record):
    """Top-1 accuracy from the engine itself, with its 95 % Wilson interval."""

    split: str
    samples: int
    correct: int
    value: float
    low: float
    high: float
    per_class: dict[str, float]
    predictions: tuple[int, ...]
    """Predicted class of each sample, so that two engines can be compared sample by sample."""
    negative_log_likelihood: float | None = None
    """Mean of -log p(label), in nats; None here and below: measured before there was this field, or not a number."""
    calibration_error: float | None = None
    """Expected calibration error over 15 bins of confidence, a share."""


class Measurement(Record):
    """Everything measured of one engine, network or file on one machine."""

    schema_version: Literal[1] = 1
    name: str
    """The row: teacher-pytorch, student-onnxruntime-int8, ..."""
    role: str
    """teacher, alone, student, student-2, assistant-1, peer-2 and so on, or file for an artefact from outside a run."""
    engine: str
    precision: str
    """As in the engine's manifest; "not stated" for an ONNX file from outside."""
    variant: str = ""
    """What tells it apart from another engine of the same runtime and precision."""
    artifact: str
    """SHA-256 of the engine's main file."""
    size_bytes: int
    parameters: int | None
    macs: int | None
    load_ms: float
    """Opening the engine's files, its runtime imported and the files verified before."""
    first_inference_ms: float
    """The first call after that, at batch 1 (or the one batch that the file takes)."""
    threads: int
    latency: tuple[Latency, ...]
    accuracy: Accuracy | None
    """None: no data to measure it on."""
    session: dict[str, Any]
    """What the engine says of itself: version, execution providers in use; and `pinned`, the cores it ran on."""
    machine: dict[str, Any]
    measured_at: str
