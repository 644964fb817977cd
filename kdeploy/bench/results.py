"""The schema of a measurement: one JSON file each, raw samples kept, units in the names of fields."""

from __future__ import annotations

from typing import Any, Literal

from kdeploy.bench.energy.results import Energy
from kdeploy.bench.loadgen.summary import LoadgenResult
from kdeploy.bench.record import Percentile as Percentile
from kdeploy.bench.record import Record as Record
from kdeploy.bench.scenarios import Audited
from kdeploy.bench.spans import Spans
from kdeploy.machine.conditions import Conditions


class Watched(Record):
    """The machine while calls were timed: from the end of the warm-up to the last call."""

    before: Conditions
    after: Conditions
    frequency_mhz: tuple[float, ...]
    """The slowest of the pinned cores, about once a second; empty where it cannot be read."""


class Latency(Record):
    """Closed-loop calls at one batch size, after a warm-up."""

    batch: int
    count: int
    warmup_count: int
    duration_s: float
    p50: Percentile
    """The median; the others are MLPerf's early-stopping estimates (`statistics.percentile_estimate`)."""
    p90: Percentile | None
    """None: this many samples cannot support it (p90 wants 64, p95 130, p99 662, p99.9 6,636)."""
    p95: Percentile | None = None
    p99: Percentile | None
    p99_9: Percentile | None = None
    throughput_per_s: float
    """Images a second: batch * count / duration_s."""
    samples_ms: tuple[float, ...]
    """Every call, in order."""
    watched: Watched | None = None
    """None: measured before the machine was watched."""
    settled: bool | None = None
    """Whether the running median had settled when the warm-up ended; None: measured before that was kept."""
    energy: Energy | None = None
    """Of the timed calls; None: measured before there were meters."""


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
    wrong: tuple[int, ...] | None = None
    """The samples that it got wrong; None here and below: measured before there was this field, or not a number."""
    negative_log_likelihood: float | None = None
    """Mean of -log p(label), in nats."""
    calibration_error: float | None = None
    """Expected calibration error over 15 bins of confidence, a share."""
    data_sha256: str | None = None
    """Of the images and labels: two engines are compared sample by sample on the same ones alone."""

    def of_the_same_data(self, other: Accuracy) -> bool:
        """Whether both were measured on the same samples, as far as is known."""
        hashes = {self.data_sha256, other.data_sha256} - {None}
        return (self.split, self.samples) == (other.split, other.samples) and len(hashes) < 2


class Memory(Record):
    """What a process takes that does nothing but open the engine and run it."""

    peak_bytes: int
    """Its largest resident set."""
    runtime_bytes: int
    """The same of a process that only imports the engine's runtime."""
    gpu_bytes: int | None = None
    """GPU memory that the process holds after its first inference, as NVML counts it; None: it does not tell."""


class Verdict(Record):
    """Whether the figures can be believed."""

    valid: bool | None
    """None: emulated. No time is claimed that could be believed or not, and nothing speaks against the rest."""
    reasons: tuple[str, ...]
    """Why not."""
    warnings: tuple[str, ...]
    """What speaks against them without proof, and what this machine does not let us read."""


class LayerTime(Record):
    """One layer, as the engine's own profile has it."""

    name: str
    operator: str
    median_us: float
    share: float
    """Of the sum of all layers."""


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
    """Of all files of the engine, as shipped."""
    compressed_bytes: int | None = None
    """The same after zlib, file by file; None: measured before there was this field."""
    parameters: int | None
    macs: int | None
    emulated: str | None = None
    """What emulates the processor: then no time, no memory and no energy is measured. None: it is a real one, or this
    was measured before there was this field."""
    load_ms: float | None
    """Opening the engine's files, its runtime imported and the files verified before. None here and of what is timed
    below: emulated."""
    first_inference_ms: float | None
    """The first call after that, at batch 1 (or the one batch that the file takes)."""
    cold_start_ms: float | None = None
    """From starting a fresh process to the end of its first inference, Python and the runtime's import among it."""
    threads: int
    latency: tuple[Latency, ...]
    """By batch; none: emulated."""
    spans: Spans | None = None
    """Where the time of one call goes; None: emulated, or measured before there were spans."""
    accuracy: Accuracy | None
    """None: no data to measure it on."""
    scenarios: tuple[Audited, ...] = ()
    """MLPerf's scenarios that were asked for."""
    scenarios_watched: tuple[Watched, ...] = ()
    """The machine during each of them."""
    loadgen: tuple[LoadgenResult, ...] = ()
    """What MLPerf's own LoadGen said of them."""
    memory: Memory | None = None
    verdict: Verdict | None = None
    """None: measured before there were verdicts."""
    session: dict[str, Any]
    """What the engine says of itself: version, execution providers in use; and `pinned`, the cores it ran on."""
    machine: dict[str, Any]
    measured_at: str
    layers: tuple[LayerTime, ...] | None = None
    """In the order in which they are computed; None: no profile was taken."""
