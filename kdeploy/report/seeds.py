"""Several seeds to one row: means with Student's t intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean, stdev

from pydantic import BaseModel, ConfigDict

from kdeploy.bench.statistics import t_quantile
from kdeploy.report.rows import Row


class Mean(BaseModel):
    """A mean over seeds with its 95 % t interval; one seed has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float
    low: float | None
    high: float | None
    seeds: int


class AggregateRow(BaseModel):
    """A row over several seeds. A figure that any seed lacks is None."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    name: str
    role: str
    engine: str
    precision: str
    seeds: int
    samples: int | None
    """Images of each seed's accuracy."""
    accuracy: Mean | None
    p50_ms: Mean | None
    p99_ms: Mean | None
    size_bytes: Mean
    latency_ratio: Mean | None
    size_ratio: Mean | None
    agreement_with_teacher: Mean | None
    parameters: int | None
    macs: int | None
    negative_log_likelihood: Mean | None = None
    calibration_error: Mean | None = None
    memory_bytes: Mean | None = None
    emulated: str | None = None
    """What emulated the processor of a seed."""


def aggregate(rows_per_seed: Sequence[Sequence[Row]]) -> list[AggregateRow]:
    """Put the rows of the same key together, in the first seed's order; only rows that every seed has."""
    tables = [{row.key: row for row in rows} for rows in rows_per_seed]
    if not tables:
        return []
    shared = [key for key in tables[0] if all(key in table for table in tables)]
    return [_aggregate_row([table[key] for table in tables]) for key in shared]


def accuracy_gain(rows_per_seed: Sequence[Sequence[Row]], key: str, over: str) -> Mean | None:
    """How much more accurate `key` is than `over`, as a fraction: the mean of the seeds' differences.

    Paired by seed, so that what a seed does to both is not counted. None where either was not measured.
    """
    pairs = []
    for rows in rows_per_seed:
        found = {row.key: row.accuracy for row in rows}
        ours, theirs = found.get(key), found.get(over)
        if ours is None or theirs is None:
            return None
        pairs.append(ours - theirs)
    return mean_of(pairs) if pairs else None


def mean_of(values: Sequence[float]) -> Mean:
    """The mean and its 95 % interval, mean ± t(0.975, n - 1) · s / √n."""
    centre = fmean(values)
    if len(values) < 2:
        return Mean(value=centre, low=None, high=None, seeds=len(values))
    reach = t_quantile(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Mean(value=centre, low=centre - reach, high=centre + reach, seeds=len(values))


def _aggregate_row(rows: Sequence[Row]) -> AggregateRow:
    def mean(figure: Callable[[Row], float | None]) -> Mean | None:
        values = [value for value in map(figure, rows) if value is not None]
        return mean_of(values) if len(values) == len(rows) else None

    first = rows[0]
    return AggregateRow(
        key=first.key,
        name=first.name,
        role=first.role,
        engine=first.engine,
        precision=first.precision,
        seeds=len(rows),
        samples=first.samples,
        accuracy=mean(lambda row: row.accuracy),
        p50_ms=mean(lambda row: row.p50_ms),
        p99_ms=mean(lambda row: row.p99_ms),
        size_bytes=mean_of([row.size_bytes for row in rows]),
        latency_ratio=mean(lambda row: row.latency_ratio),
        size_ratio=mean(lambda row: row.size_ratio),
        agreement_with_teacher=mean(lambda row: row.agreement_with_teacher),
        parameters=first.parameters,
        macs=first.macs,
        negative_log_likelihood=mean(lambda row: row.negative_log_likelihood),
        calibration_error=mean(lambda row: row.calibration_error),
        memory_bytes=mean(lambda row: row.memory_bytes),
        emulated=next((row.emulated for row in rows if row.emulated is not None), None),
    )
