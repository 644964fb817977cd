"""What the parent asks of the measuring child, and what comes back: two JSON files and lines on a pipe.

Each line of the child's standard output is one JSON object: {"done": SHARE} for progress, or
{"event": NAME, "arguments": [...]} for what the library said.
"""

from __future__ import annotations

from typing import Any

from kdeploy.bench.loadgen import LoadgenResult
from kdeploy.bench.results import Accuracy, Latency, Record, Watched
from kdeploy.bench.scenarios import Audited, Settings
from kdeploy.bench.spans import Spans
from kdeploy.recipe.schema import BenchSpec


class ScenariosAsked(Record):
    """MLPerf's scenarios to run besides."""

    names: tuple[str, ...]
    settings: Settings
    mlperf: bool
    """With the official durations and counts."""
    loadgen: str | None
    """Where LoadGen, which then runs them too, writes its logs; a folder each."""


class Job(Record):
    """Measure `artifact`, an engine folder or an ONNX file, and write the Outcome or the Failure to `outcome`."""

    artifact: str
    bench: BenchSpec
    data: str | None
    """A NumPy archive with `images`, uint8 `[N, H, W, C]`, and `labels`, int64 `[N]`."""
    split: str
    scenarios: ScenariosAsked | None
    emulated: bool = False
    """Take no time of anything: see that it runs, and how accurate it is."""
    outcome: str


class FreshJob(Record):
    """Start, and open and run `artifact` once if `run` says so, else import its runtime alone."""

    artifact: str
    threads: int
    run: bool
    outcome: str


class BlocksJob(Record):
    """Open `artifact` and answer with medians of blocks, as `kdeploy.bench.blocks` says."""

    artifact: str
    threads: int


class Fresh(Record):
    """What a fresh process took."""

    answered_at_ns: int | None
    """When its first inference ended, on the clock that all processes share (CLOCK_MONOTONIC)."""
    peak_bytes: int | None
    gpu_bytes: int | None


class Failure(Record):
    """An error that the user can act on, by the name of its class in `kdeploy.errors`."""

    kind: str
    message: str


class Outcome(Record):
    """What the child measured; the fields are those of `results.Measurement`."""

    load_ms: float | None
    first_inference_ms: float | None
    latency: tuple[Latency, ...]
    spans: Spans | None
    accuracy: Accuracy | None
    scenarios: tuple[Audited, ...]
    scenarios_watched: tuple[Watched, ...]
    loadgen: tuple[LoadgenResult, ...]
    session: dict[str, Any]
