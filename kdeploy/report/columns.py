"""The columns of the final table: one definition for the terminal, Markdown and HTML."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from kdeploy.report import figures
from kdeploy.report.rows import Row
from kdeploy.report.seeds import AggregateRow, Mean


@dataclass(frozen=True)
class Column:
    """A column of figures: its heading, the value to sort and compare by, and the text of a cell."""

    title: str
    help: str
    value: Callable[[Row], float | None]
    text: Callable[[Row], str]
    best: Literal["highest", "lowest"] | None
    note: Callable[[Row], str] = lambda row: ""
    """A smaller addition to the text: the interval of an accuracy."""


NLL, ECE, MEMORY = "NLL", "ECE", "memory"
"""The columns of likelihood, calibration error and memory: `columns_for` says which tables have them."""

COLUMNS: tuple[Column, ...] = (
    Column(
        "accuracy",
        "Top-1 on held-out images, with its 95 % Wilson interval",
        lambda row: row.accuracy,
        lambda row: figures.percent(row.accuracy),
        "highest",
        lambda row: figures.interval(row.accuracy_low, row.accuracy_high),
    ),
    Column(
        NLL,
        "Negative log-likelihood of the labels, in nats an image: low where the right class is thought likely",
        lambda row: row.negative_log_likelihood,
        lambda row: figures.nats(row.negative_log_likelihood),
        "lowest",
    ),
    Column(
        ECE,
        "Expected calibration error over 15 bins: how far confidence is from accuracy",
        lambda row: row.calibration_error,
        lambda row: figures.percent(row.calibration_error),
        "lowest",
    ),
    Column(
        "agrees",
        "Share of images on which it names the teacher's class",
        lambda row: row.agreement_with_teacher,
        lambda row: figures.percent(row.agreement_with_teacher),
        None,
    ),
    Column(
        "p50",
        "Median latency of one image",
        lambda row: row.p50_ms,
        lambda row: figures.milliseconds(row.p50_ms),
        "lowest",
        lambda row: figures.spread(row.p50_ms, row.p50_low_ms, row.p50_high_ms),
    ),
    Column(
        "p99",
        "99th percentile of the latency of one image; n/a where too few calls support it",
        lambda row: row.p99_ms,
        lambda row: figures.milliseconds(row.p99_ms),
        "lowest",
        lambda row: figures.spread(row.p99_ms, row.p99_low_ms, row.p99_high_ms),
    ),
    Column(
        "faster",
        "The baseline's p50 over this p50",
        lambda row: row.latency_ratio,
        lambda row: figures.ratio(row.latency_ratio),
        "highest",
    ),
    Column(
        "size",
        "Bytes on disk, all files that the engine needs",
        lambda row: row.size_bytes,
        lambda row: figures.size(row.size_bytes),
        "lowest",
    ),
    Column(
        "smaller",
        "The baseline's size over this size",
        lambda row: row.size_ratio,
        lambda row: figures.ratio(row.size_ratio),
        "highest",
    ),
    Column(
        MEMORY,
        "Peak resident set of a process that only loads and runs it, with its runtime",
        lambda row: row.memory_bytes,
        lambda row: figures.size(row.memory_bytes),
        "lowest",
    ),
    Column(
        "params",
        "Parameters",
        lambda row: row.parameters,
        lambda row: figures.count(row.parameters),
        "lowest",
    ),
    Column(
        "MACs",
        "Multiply-accumulates of one image",
        lambda row: row.macs,
        lambda row: figures.millions(row.macs),
        "lowest",
    ),
)


@dataclass(frozen=True)
class AggregateColumn:
    """A column of means over seeds; the note is the interval."""

    title: str
    value: Callable[[AggregateRow], float | None]
    text: Callable[[AggregateRow], str]
    best: Literal["highest", "lowest"] | None
    note: Callable[[AggregateRow], str]


def _mean_column(
    title: str,
    mean: Callable[[AggregateRow], Mean | None],
    write: Callable[[float | None], str],
    best: Literal["highest", "lowest"] | None,
    spread: Callable[[float | None, float | None], str],
) -> AggregateColumn:
    def value(row: AggregateRow) -> float | None:
        found = mean(row)
        return None if found is None else found.value

    def note(row: AggregateRow) -> str:
        found = mean(row)
        return "" if found is None else spread(found.low, found.high)

    return AggregateColumn(title, value, lambda row: write(value(row)), best, note)


def _plain_interval(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return ""
    return f"[{figures.significant(low)}, {figures.significant(high)}]"


def _no_interval(low: float | None, high: float | None) -> str:
    return ""


AGGREGATE_COLUMNS: tuple[AggregateColumn, ...] = (
    _mean_column("accuracy", lambda row: row.accuracy, figures.percent, "highest", figures.interval),
    _mean_column(NLL, lambda row: row.negative_log_likelihood, figures.nats, "lowest", _plain_interval),
    _mean_column(ECE, lambda row: row.calibration_error, figures.percent, "lowest", figures.interval),
    _mean_column("agrees", lambda row: row.agreement_with_teacher, figures.percent, None, figures.interval),
    _mean_column("p50", lambda row: row.p50_ms, figures.milliseconds, "lowest", _plain_interval),
    _mean_column("faster", lambda row: row.latency_ratio, figures.ratio, "highest", _plain_interval),
    _mean_column("size", lambda row: row.size_bytes, figures.size, "lowest", _no_interval),
    _mean_column("smaller", lambda row: row.size_ratio, figures.ratio, "highest", _no_interval),
    _mean_column(MEMORY, lambda row: row.memory_bytes, figures.size, "lowest", _no_interval),
)


AnyColumn = TypeVar("AnyColumn", Column, AggregateColumn)


_FURTHER_TEACHER = re.compile(r"teacher-\d")
"""A letter there would be that of a run beside others."""


def columns_for(columns: Sequence[AnyColumn], rows: Sequence[Row | AggregateRow]) -> list[AnyColumn]:
    """The columns of a table of these rows.

    With likelihood and calibration error where it has several teachers: those two are what an ensemble is for, and in
    the tables of one teacher they would only take up room. With memory where that was measured. The figures are in
    every run's JSON.
    """
    left_out = set()
    if not any(_FURTHER_TEACHER.match(row.role) for row in rows):
        left_out |= {NLL, ECE}
    if all(row.memory_bytes is None for row in rows):
        left_out |= {MEMORY}
    return [column for column in columns if column.title not in left_out]


def heading(title: str) -> str:
    """A column's title with its unit, where cells do not show it."""
    return f"{title} (ms)" if title in ("p50", "p99") else title


def best_of(values: Sequence[float | None], wanted: Literal["highest", "lowest"] | None) -> set[int]:
    """Which rows hold the best value of a column: all that tie, none where fewer than two differ."""
    measured = [value for value in values if value is not None]
    if wanted is None or len(set(measured)) < 2:
        return set()
    best = max(measured) if wanted == "highest" else min(measured)
    return {place for place, value in enumerate(values) if value == best}
