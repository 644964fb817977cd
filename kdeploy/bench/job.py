"""What the parent asks of the measuring child, and what comes back: two JSON files and lines on a pipe.

Each line of the child's standard output is one JSON object: {"done": SHARE} for progress, or
{"event": NAME, "arguments": [...]} for what the library said.
"""

from __future__ import annotations

from typing import Any

from kdeploy.bench.results import Accuracy, Latency, Record
from kdeploy.recipe.schema import BenchSpec


class Job(Record):
    """Measure `artifact`, an engine folder or an ONNX file, and write the Outcome or the Failure to `outcome`."""

    artifact: str
    bench: BenchSpec
    data: str | None
    """A NumPy archive with `images`, uint8 `[N, H, W, C]`, and `labels`, int64 `[N]`."""
    split: str
    outcome: str


class Failure(Record):
    """An error that the user can act on, by the name of its class in `kdeploy.errors`."""

    kind: str
    message: str


class Outcome(Record):
    """What the child measured; the fields are those of `results.Measurement`."""

    load_ms: float
    first_inference_ms: float
    latency: tuple[Latency, ...]
    accuracy: Accuracy | None
    session: dict[str, Any]
