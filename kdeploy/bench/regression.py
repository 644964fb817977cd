"""Did a change make it worse? Conditions on the change against an earlier measurement of the same machine."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kdeploy.bench.comparison import CONFIDENCE
from kdeploy.bench.record import Record
from kdeploy.bench.results import Accuracy, Latency, Measurement, Percentile
from kdeploy.bench.statistics import wilson
from kdeploy.errors import GateFailed, UserError, nearest

_CONDITION = re.compile(r"\s*(\w+(?:\.\d)?)\s*([<>])\s*([+-]?\d+(?:\.\d+)?)\s*(%?)\s*")
_SAME_MACHINE = ("processor", "board", "architecture", "memory_bytes", "emulation")
UNCLOCKED = ("accuracy", "size")
"""Figures that are the same on an emulated processor."""
_STRETCHES = 20
"""Parts of a run that are drawn anew: a machine's speed drifts, and neighbouring calls share it."""
_DRAWS = 1000
_Z = 2.5758293035489004  # of 99 %, both sides


@dataclass(frozen=True)
class Change:
    """How a figure changed, with its interval; in percent, of an accuracy in points."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Condition:
    """What must not be: `p50 > 3%`."""

    text: str
    what: str
    sign: Literal["<", ">"]
    bound: float


class Checked(Record):
    """A condition, looked at for one row."""

    row: str
    condition: str
    change: float | None
    """In percent, of an accuracy in points; None: one of the two did not measure it."""
    low: float | None
    high: float | None
    failed: bool


def parse(text: str) -> Condition:
    """Read `p50 > 3%`. Raises UserError for what cannot be read, and says what can."""
    found = _CONDITION.fullmatch(text)
    example = "Write for instance 'p50 > 3%', 'accuracy < -0.5' (points), 'size > 0%' or 'memory > 10%'."
    if found is None:
        raise UserError(f"The condition {text!r} can't be read. {example}")
    what, sign, bound, percent = found.groups()
    if what not in _CHANGES:
        raise UserError(f"There is no figure {what!r} to set a condition on.{nearest(what, _CHANGES)}")
    if bool(percent) == (what == "accuracy"):
        unit = "points, without %" if what == "accuracy" else "percent, with %"
        raise UserError(f"The condition {text!r} can't be read: a change of {what} is in {unit}. {example}")
    return Condition(text, what, "<" if sign == "<" else ">", float(bound))


def check(
    measured: Sequence[Measurement], baseline: Iterable[Measurement], conditions: Sequence[Condition]
) -> list[Checked]:
    """Every condition for every row that the baseline has.

    A condition has failed only where the whole interval of the change lies beyond its bound.
    """
    before = {found.name: found for found in baseline}
    pairs = [(before[found.name], found) for found in measured if found.name in before]
    return [_checked(old, new, condition) for old, new in pairs for condition in conditions]


def require_comparable(
    baseline: Sequence[Measurement], names: Iterable[str], machine: Mapping[str, Any], threads: int
) -> None:
    """Raise UserError where a baseline is of another machine or number of threads, or has none of these rows.

    Asked before anything is measured.
    """
    rows = list(names)
    same = [found for found in baseline if found.name in rows]
    if not same:
        known = ", ".join(found.name for found in baseline) or "nothing"
        raise UserError(f"The baseline has measured {known}, and none of {', '.join(rows)}.")
    for found in same:
        names = differing(found.machine, machine)
        if names:
            said = "; ".join(f"{name} {found.machine.get(name)} there, {machine.get(name)} here" for name in names)
            raise UserError(f"The baseline was measured on another machine ({said}): make a baseline on this one.")
        if found.threads != threads:
            raise UserError(
                f"The baseline of {found.name} was measured with {found.threads} threads and not {threads}: give "
                f"--threads {found.threads}, or make a new baseline."
            )


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """By which facts of their fingerprints two machines are told apart; none: they may be one."""
    return [name for name in _SAME_MACHINE if one.get(name) != other.get(name)]


def _checked(old: Measurement, new: Measurement, condition: Condition) -> Checked:
    change = _CHANGES[condition.what](old, new)
    if change is None:
        return Checked(row=new.name, condition=condition.text, change=None, low=None, high=None, failed=False)
    failed = change.low > condition.bound if condition.sign == ">" else change.high < condition.bound
    return Checked(
        row=new.name, condition=condition.text, change=change.value, low=change.low, high=change.high, failed=failed
    )


def _of_median(old: Measurement, new: Measurement) -> Change | None:
    """By a bootstrap over stretches of both runs."""
    before, after = _batch_one(old), _batch_one(new)
    if before is None or after is None:
        return None
    generator = np.random.default_rng(0)
    ratios = _medians(after, generator) / _medians(before, generator)
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    value = after.p50.value_ms / before.p50.value_ms
    return _percent(value, min(float(low), value), max(float(high), value))


def _medians(latency: Latency, generator: np.random.Generator) -> NDArray[np.float64]:
    """Of runs as this one might have been, `[draws]`: the median over stretches of their medians."""
    stretches = np.array_split(np.array(latency.samples_ms), min(_STRETCHES, latency.count))
    medians = np.array([np.median(stretch) for stretch in stretches])
    return np.asarray(np.median(generator.choice(medians, (_DRAWS, len(medians))), axis=1))


def _of_percentile(name: str) -> Callable[[Measurement, Measurement], Change | None]:
    def change(old: Measurement, new: Measurement) -> Change | None:
        before, after = (None if found is None else getattr(found, name) for found in map(_batch_one, (old, new)))
        if not isinstance(before, Percentile) or not isinstance(after, Percentile):
            return None
        return _percent(after.value_ms / before.value_ms, after.low_ms / before.high_ms, after.high_ms / before.low_ms)

    return change


def _of_number(read: Callable[[Measurement], float | None]) -> Callable[[Measurement, Measurement], Change | None]:
    """A figure that was read once, and has no interval."""

    def change(old: Measurement, new: Measurement) -> Change | None:
        before, after = read(old), read(new)
        if before is None or after is None:
            return None
        return _percent(after / before, after / before, after / before)

    return change


def _of_accuracy(old: Measurement, new: Measurement) -> Change | None:
    """In points; paired where both say which samples of the same split they got wrong, else by Newcombe's interval."""
    before, after = old.accuracy, new.accuracy
    if before is None or after is None:
        return None
    value = after.value - before.value
    if before.of_the_same_data(after) and before.wrong is not None and after.wrong is not None:
        lost, won = len(set(after.wrong) - set(before.wrong)), len(set(before.wrong) - set(after.wrong))
        total = after.samples
        reach = _Z * math.sqrt(lost + won - (won - lost) ** 2 / total) / total
        return Change(100 * value, 100 * (value - reach), 100 * (value + reach))
    (low_before, high_before), (low_after, high_after) = _wilson(before), _wilson(after)
    below = math.hypot(after.value - low_after, high_before - before.value)
    above = math.hypot(high_after - after.value, before.value - low_before)
    return Change(100 * value, 100 * (value - below), 100 * (value + above))


def _wilson(accuracy: Accuracy) -> tuple[float, float]:
    return wilson(accuracy.correct, accuracy.samples, CONFIDENCE)


def _percent(ratio: float, low: float, high: float) -> Change:
    return Change(100 * (ratio - 1), 100 * (low - 1), 100 * (high - 1))


def _batch_one(found: Measurement) -> Latency | None:
    return next((latency for latency in found.latency if latency.batch == 1), None)


_CHANGES: Mapping[str, Callable[[Measurement, Measurement], Change | None]] = {
    "p50": _of_median,
    "p90": _of_percentile("p90"),
    "p95": _of_percentile("p95"),
    "p99": _of_percentile("p99"),
    "p99.9": _of_percentile("p99_9"),
    "accuracy": _of_accuracy,
    "size": _of_number(lambda found: found.size_bytes),
    "memory": _of_number(lambda found: None if found.memory is None else found.memory.peak_bytes),
}


def measurements_of(content: Any, path: object) -> list[Measurement]:
    """The measurements in what `kdeploy bench --json` wrote, or in one file of its `--out`. Raises UserError."""
    listed = content.get("measurements", [content]) if isinstance(content, dict) else [content]
    try:
        return [Measurement.model_validate(one) for one in listed]
    except ValueError:
        raise UserError(f"{path} holds no measurements: give what kdeploy bench wrote with --json or --out.") from None


def require(checked: Sequence[Checked]) -> None:
    """Raise GateFailed where a condition has failed."""
    failed = [f"{one.row}: {one.condition}" for one in checked if one.failed]
    if failed:
        raise GateFailed(f"It became worse than allowed: {'; '.join(failed)}.")


def sentence(found: Checked) -> str:
    """What became of a condition, for people."""
    if found.change is None:
        return f"{found.row}: {found.condition}: not measured in both, so not judged."
    unit = "points" if found.condition.lstrip().startswith("accuracy") else "%"
    verdict = "FAILED" if found.failed else "holds"
    spread = f"[{found.low:+.2f}, {found.high:+.2f}]"
    return f"{found.row}: {found.condition}: {verdict}; the change is {found.change:+.2f} {unit} {spread}."
