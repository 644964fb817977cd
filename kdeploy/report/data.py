"""Everything that a report shows."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from kdeploy.bench.results import Measurement
from kdeploy.parity.record import Parity
from kdeploy.report.rows import Row
from kdeploy.report.seeds import AggregateRow, Mean


class Part(BaseModel):
    """A part of a report: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Epoch(BaseModel):
    """One epoch of a training; a line of `metrics.jsonl` has more, which is left out."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    epoch: int
    train_loss: float
    validation_accuracy: float | None
    lr: float


class EpochScore(Part):
    """One epoch's weights: accuracies as shares; epoch counts from 0; None: not measured, or not a number."""

    epoch: int
    validation_accuracy: float | None
    """None where there are no validation images."""
    test_accuracy: float
    test_negative_log_likelihood: float | None = None
    test_calibration_error: float | None = None


class ReportedEpochs(Part):
    """A trained network at its last epoch and at the epoch chosen on validation; never the best on test."""

    schema_version: Literal[1] = 1
    selected: Literal["last", "validation"]
    """Which of the two is the network of the tables."""
    test_samples: int
    last: EpochScore
    chosen: EpochScore


class Gate(Part):
    """A bound, what was measured, and whether it holds."""

    name: str
    row: str
    """Key of the row that it speaks of."""
    bound: str
    value: str
    passed: bool


class Device(Part):
    """What was measured on another machine, by `kdeploy bench --target`."""

    name: str
    rows: tuple[Row, ...]
    """In their own order, and with ratios among themselves: nothing is compared between machines but accuracy."""
    machine: dict[str, Any]
    measured_at: str
    outdated: tuple[str, ...] = ()
    """The keys of rows whose engines the run has no more: it was made again since."""

    @property
    def outdated_note(self) -> str | None:
        """What is to be said of them."""
        names = ", ".join(row.name for row in self.rows if row.key in self.outdated)
        again = f"To measure on {self.name} again: kdeploy bench RUN --target TARGET"
        return f"Measured of engines that this run has no more: {names}. {again}" if names else None


class LayerCost(BaseModel):
    """What int8 costs in one layer alone, of what `quantize.sensitivity.LayerCost` holds."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    layer: str
    operator: str
    divergence: float
    """Mean Kullback-Leibler divergence of the probabilities from float32's, in nats."""
    same_class: float
    """Share of images of which float32's class is named."""
    accuracy_points: float | None


class Sensitivity(Part):
    """Each layer of a network in int8, the others in float32; in the order in which they are computed."""

    name: str
    """The network, and the scheme or file: "student, x86-vnni"."""
    layers: tuple[LayerCost, ...]
    kept_float32: tuple[str, ...] = ()
    """Layers that stay in float32 in the mixed file that this was measured for."""


class Made(Part):
    """A file, and what it was made from, both by hash."""

    name: str
    """What it is: "teacher", "student · ONNX int8", ..."""
    file: str
    """Its path in the run folder, or where it came from."""
    sha256: str
    stage: str | None
    """Which stage made it; None: it came from outside."""
    made_from: tuple[str, ...]
    """Files of the same list."""
    ships: bool = False
    """Whether it is a bundle, or something that a bundle was made from."""


class Stage(Part):
    """A stage of the run and what it made."""

    name: str
    seconds: float
    outputs: dict[str, str]
    """SHA-256 of each file, by its path in the run folder."""


class ReportData(Part):
    """One run, from teacher to engines."""

    schema_version: Literal[1] = 1
    title: str
    about: str
    created: str
    kdeploy: str
    revision: str | None
    seed: int
    recipe_yaml: str
    """The resolved recipe."""
    baseline: str
    """Key of the row that ratios refer to."""
    shipped: str | None
    """Key of the row that the student's bundle holds; None: nothing was packed."""
    also_shipped: tuple[str, ...] = ()
    """The same of further students' bundles."""
    baselines: dict[str, str] = {}
    """What each shipped row replaces, where several runs stand beside each other; otherwise `baseline`."""
    rows: tuple[Row, ...]
    seeds: tuple[AggregateRow, ...] = ()
    """Means, where several seeds were run."""
    gain: Mean | None = None
    """Accuracy of distilled less alone, paired by seed."""
    further_gains: dict[str, Mean] = {}
    """The same of further students, by role."""
    measurements: tuple[Measurement, ...]
    curves: dict[str, tuple[Epoch, ...]]
    """By the network's role."""
    epochs: dict[str, ReportedEpochs] = {}
    """By the network's role, for those trained in this run."""
    parity: dict[str, Parity]
    """By the name of the file that was compared."""
    gates: tuple[Gate, ...]
    int8_failures: tuple[str, ...] = ()
    """Where int8 is slower or less accurate than float32: sentences."""
    provenance: tuple[Stage, ...]
    lineage: tuple[Made, ...] = ()
    """From checkpoints and teachers to engines and bundles; whatever a file was made from stands before it."""
    sensitivity: tuple[Sensitivity, ...] = ()
    machine: dict[str, Any]
    further_machines: dict[str, dict[str, Any]] = {}
    """Of runs beside the first, by their letter, where they were made on another machine."""
    devices: tuple[Device, ...] = ()
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """What the procedure has to say of its networks: sentences."""
    paths: dict[str, str]
    """Where things lie: run folder, bundle, ..."""
