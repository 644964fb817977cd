"""What is plainly said of measurements: which cannot be believed, and where int8 is not worth it."""

from __future__ import annotations

from collections.abc import Sequence

from kdeploy.bench.results import Measurement
from kdeploy.errors import InvalidMeasurement
from kdeploy.report import figures, scenarios
from kdeploy.report.rows import batch_one, display_name

_JUDGED = ("int8", "mixed")


def scenario_lines(measurements: Sequence[Measurement]) -> list[str]:
    """What MLPerf's scenarios and LoadGen have measured, by row."""
    lines = []
    for found in measurements:
        ours = [line for audited in found.scenarios for line in scenarios.lines(audited)]
        theirs = [line for one in found.loadgen for line in scenarios.loadgen_lines(one)]
        lines += [f"{display_name(found)}: {line}" for line in (*ours, *theirs)]
    return lines


def require_valid(measurements: Sequence[Measurement]) -> None:
    """Raise InvalidMeasurement where one is INVALID, or is emulated, so that no latency could be measured."""
    bad = [display_name(found) for found in measurements if found.verdict is not None and found.verdict.valid is False]
    if bad:
        raise InvalidMeasurement(
            f"{len(bad)} of {len(measurements)} measurements are INVALID: {', '.join(bad)}. The reasons are above; "
            "measure again on a machine that does nothing else, or leave out --strict."
        )
    emulated = [found for found in measurements if found.emulated is not None]
    if emulated:
        raise InvalidMeasurement(
            f"{len(emulated)} of {len(measurements)} measurements have no latency, because the processor is emulated "
            f"({emulated[0].emulated}): measure on the real device, or leave out --strict."
        )


def int8_failures(measurements: Sequence[Measurement], allowed_points: float | None) -> list[str]:
    """A sentence for each engine in int8 or mixed precision that is worse than float32 in the same runtime.

    It is slower where even the lower end of its median's 99 % interval lies above the upper end of float32's, and
    less accurate where it loses more than allowed_points on the same images; None: its accuracy is not judged.
    """
    sentences = []
    for found in measurements:
        reference = _float32_of(found, measurements)
        if found.precision not in _JUDGED or reference is None:
            continue
        reasons = [*_slower(found, reference), *_less_accurate(found, reference, allowed_points)]
        if reasons:
            said = ", and ".join(reasons)
            sentences.append(f"{found.precision} fails on this machine: {display_name(found)} {said}.")
    return sentences


def _float32_of(found: Measurement, measurements: Sequence[Measurement]) -> Measurement | None:
    """The fastest float32 engine of the same network in the same runtime; the first, where none was timed."""
    same = [
        one
        for one in measurements
        if (one.role, one.engine, one.threads, one.precision) == (found.role, found.engine, found.threads, "float32")
    ]
    timed = [(latency.p50.value_ms, number) for number, one in enumerate(same) if (latency := batch_one(one))]
    if timed:
        return same[min(timed)[1]]
    return same[0] if same else None


def _slower(found: Measurement, reference: Measurement) -> list[str]:
    ours, theirs = batch_one(found), batch_one(reference)
    if ours is None or theirs is None or ours.p50.low_ms <= theirs.p50.high_ms:
        return []
    return [
        f"takes {figures.milliseconds(ours.p50.value_ms)} ms an image and float32 "
        f"{figures.milliseconds(theirs.p50.value_ms)} ms "
        f"({figures.ratio(ours.p50.value_ms / theirs.p50.value_ms)} slower)"
    ]


def _less_accurate(found: Measurement, reference: Measurement, allowed_points: float | None) -> list[str]:
    ours, theirs = found.accuracy, reference.accuracy
    if ours is None or theirs is None or allowed_points is None:
        return []
    if (ours.split, ours.samples) != (theirs.split, theirs.samples):
        return []
    lost = 100 * (theirs.value - ours.value)
    if lost <= allowed_points + 1e-9:
        return []
    return [
        f"names {figures.percent(ours.value)} of {ours.samples:,} images correctly and float32 "
        f"{figures.percent(theirs.value)} ({lost:.2f} points lost, {allowed_points:g} allowed)"
    ]
