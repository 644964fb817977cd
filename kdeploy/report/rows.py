"""From measurements to the rows of a table: pure functions, no drawing."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from kdeploy.bench.results import Latency, Measurement
from kdeploy.errors import UserError, nearest

_ENGINES = {
    "pytorch": "PyTorch",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "tensorrt": "TensorRT",
}
_ROLES = ("teacher", "assistant", "alone", "student", "peer")
_PRECISIONS = ("float32", "bfloat16", "float16", "mixed", "int8")


class Row(BaseModel):
    """One network in one engine, as the tables show it. What was not measured is None."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    """The measurement's own name: teacher-pytorch, student-onnxruntime-int8, ..."""
    name: str
    """What the table shows: "teacher · PyTorch float32"."""
    role: str
    engine: str
    precision: str
    accuracy: float | None
    accuracy_low: float | None
    """95 % Wilson interval."""
    accuracy_high: float | None
    samples: int | None
    """Images that the accuracy was measured on."""
    p50_ms: float | None
    """Batch 1."""
    p99_ms: float | None
    """Batch 1; None: too few calls to support it."""
    p50_low_ms: float | None = None
    """99 % interval, here and of p99, from order statistics."""
    p50_high_ms: float | None = None
    p99_low_ms: float | None = None
    p99_high_ms: float | None = None
    size_bytes: int
    parameters: int | None
    macs: int | None
    latency_ratio: float | None
    """The baseline's p50 over this p50: times faster."""
    size_ratio: float | None
    """The baseline's bytes over these: times smaller."""
    agreement_with_teacher: float | None
    """Share of images on which it names the teacher's class."""
    negative_log_likelihood: float | None = None
    """Mean of -log p(label), in nats, on the images of `accuracy`."""
    calibration_error: float | None = None
    """Expected calibration error over 15 bins, a share."""
    memory_bytes: int | None = None
    """Peak resident set of a process that only runs it."""
    valid: bool | None = None
    """The verdict on the measurement; None: nobody judged it, or it is emulated and no time was there to be judged."""
    reasons: tuple[str, ...] = ()
    """Why it is not valid."""
    warnings: tuple[str, ...] = ()
    """What speaks against it without proof, and what the machine does not let us read."""
    emulated: str | None = None
    """What emulated the processor; then there is no latency and no memory."""


def rows_from(measurements: Sequence[Measurement], *, baseline: str) -> list[Row]:
    """The table's rows: teacher first, then the student alone, the student, and in each its engines.

    baseline: name of the measurement that ratios (and, where it is a teacher, agreement) refer to.
    Raises a UserError where there is none of this name.
    """
    by_name = {measurement.name: measurement for measurement in measurements}
    if baseline not in by_name:
        raise UserError(f"There is no measurement {baseline!r} to compare with.{nearest(baseline, by_name)}")
    return [_row(measurement, by_name[baseline]) for measurement in sorted(measurements, key=_place)]


def baseline_of(measurements: Sequence[Measurement]) -> str:
    """What the ratios of a table refer to where nobody says: a teacher's, or the first."""
    names = [one.name for one in measurements]
    return next((one.name for one in measurements if one.role == "teacher"), names[0])


def batch_one(measurement: Measurement) -> Latency | None:
    """The latencies at batch 1, None where only other batches were measured."""
    return next((latency for latency in measurement.latency if latency.batch == 1), None)


def display_name(measurement: Measurement) -> str:
    """ "teacher · PyTorch float32"; a file from outside a run goes by its own name."""
    subject = measurement.name if measurement.role == "file" else measurement.role
    runtime = _ENGINES.get(measurement.engine, measurement.engine)
    variant = f" ({measurement.variant})" if measurement.variant else ""
    return f"{subject} · {runtime} {measurement.precision}{variant}"


def _place(measurement: Measurement) -> tuple[int, str, bool, str, int]:
    """Where a measurement belongs in the table; those that tie stay as they came."""
    family = measurement.role.partition("-")[0]
    role = _ROLES.index(family) if family in _ROLES else len(_ROLES)
    known = measurement.precision in _PRECISIONS
    precision = _PRECISIONS.index(measurement.precision) if known else len(_PRECISIONS)
    return (role, measurement.role, measurement.engine != "pytorch", measurement.engine, precision)


def _row(measurement: Measurement, baseline: Measurement) -> Row:
    accuracy = measurement.accuracy
    latency, reference = batch_one(measurement), batch_one(baseline)
    p50, p99 = (latency.p50, latency.p99) if latency else (None, None)
    return Row(
        key=measurement.name,
        name=display_name(measurement),
        role=measurement.role,
        engine=measurement.engine,
        precision=measurement.precision,
        accuracy=accuracy.value if accuracy else None,
        accuracy_low=accuracy.low if accuracy else None,
        accuracy_high=accuracy.high if accuracy else None,
        samples=accuracy.samples if accuracy else None,
        p50_ms=p50.value_ms if p50 else None,
        p99_ms=p99.value_ms if p99 else None,
        p50_low_ms=p50.low_ms if p50 else None,
        p50_high_ms=p50.high_ms if p50 else None,
        p99_low_ms=p99.low_ms if p99 else None,
        p99_high_ms=p99.high_ms if p99 else None,
        size_bytes=measurement.size_bytes,
        parameters=measurement.parameters,
        macs=measurement.macs,
        latency_ratio=reference.p50.value_ms / latency.p50.value_ms if latency and reference else None,
        size_ratio=baseline.size_bytes / measurement.size_bytes,
        agreement_with_teacher=_agreement(measurement, baseline) if baseline.role == "teacher" else None,
        negative_log_likelihood=accuracy.negative_log_likelihood if accuracy else None,
        calibration_error=accuracy.calibration_error if accuracy else None,
        memory_bytes=measurement.memory.peak_bytes if measurement.memory else None,
        valid=measurement.verdict.valid if measurement.verdict else None,
        reasons=measurement.verdict.reasons if measurement.verdict else (),
        warnings=measurement.verdict.warnings if measurement.verdict else (),
        emulated=measurement.emulated,
    )


def _agreement(measurement: Measurement, teacher: Measurement) -> float | None:
    ours, theirs = measurement.accuracy, teacher.accuracy
    if ours is None or theirs is None or not ours.of_the_same_data(theirs):
        return None
    same = sum(a == b for a, b in zip(ours.predictions, theirs.predictions, strict=True))
    return same / ours.samples
