"""What all scenarios share: their interface, the clock, what is asked of them, and the record that they return.

The four are those of MLPerf Inference (Reddi et al. 2020, arXiv:1911.02549; mlcommons/inference_policies). A scenario
is pure of files and processes: a callable to run, arrays to run it on, and a clock, which tests replace by a simulated
one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kdeploy.bench.record import Percentile, Record
from kdeploy.bench.scenarios._timeline import Timeline
from kdeploy.bench.statistics import early_stopping_min_count, percentile_estimate

Run = Callable[[NDArray[Any]], NDArray[Any]]
"""One synchronous inference: when it returns, the outputs are there."""
Report = Callable[[float], None]
"""Called about once a second, outside the clock, with the share that is done."""

OFFICIAL_TIME_S = 600.0
"""The least duration of every scenario in MLPerf's `mlperf.conf`."""
_ORDER_LENGTH = 4096


class Clock(Protocol):
    """Time in nanoseconds from any origin."""

    def now(self) -> int:
        """The time."""

    def wait_until(self, at: int) -> int:
        """Return the time once it is `at` or later."""


class Settings(Record):
    """What is asked of a scenario."""

    min_time_s: float = Field(10.0, gt=0)
    min_count: int = Field(662, ge=1)
    """Fewest queries; for Offline, whose query is one, samples."""
    rate: float | None = Field(None, gt=0)
    """Server: queries a second; None: search the highest whose p99 stays within the bound."""
    bound_ms: float = Field(15.0, gt=0)
    """Server: what p99 may reach. 15 ms is MLPerf's bound for ResNet-50."""
    batch: int = Field(1, ge=1)
    """Offline: samples in one call."""
    seed: int = 0


class Attempt(Record):
    """One rate that Server's search has tried."""

    rate: float
    """Queries a second asked for."""
    queries: int
    """Answered before it was over, or given up because too many answers were late."""
    late: int
    """Answers above the bound."""
    met: bool
    """For a short trial: at most one in a hundred was late. For a whole run: p99's estimate is within the bound."""


class ScenarioResult(Record):
    """What one scenario measured. Times are milliseconds, from the run's begin where they are points in time."""

    scenario: str
    samples_per_query: int
    queries: int
    """Answered; for Offline, whose query is one, calls."""
    samples: int
    warmup_count: int
    duration_s: float
    """From the begin to the last answer."""
    metric: str
    """The scenario's one figure, in words."""
    unit: Literal["ms", "queries/s", "samples/s"]
    value: float | None
    """None: this run does not support the figure; `reasons` says why."""
    met: bool
    """Whether the scenario's rules hold: duration, counts, early stopping, bound."""
    reasons: tuple[str, ...]
    """Why they do not."""
    early_stopping_met: bool | None
    """Whether the queries support the metric's percentile with 99 % confidence; None: it is not a percentile."""
    early_stopping_count: int | None
    """The fewest queries that do."""
    p50: Percentile | None
    p90: Percentile | None
    p95: Percentile | None
    p99: Percentile | None
    p99_9: Percentile | None
    """Of the query latencies; None where so few queries can't support it, and for a run that was broken off."""
    latency_ms: tuple[float, ...]
    """Each query in order, from the time it was scheduled; for Offline each call."""
    scheduled_ms: tuple[float, ...]
    issued_ms: tuple[float, ...]
    """Later than scheduled where the engine was still busy with an earlier query, or the clock woke up late."""
    rate: float | None = None
    """Server: queries a second asked for, or found by the search."""
    bound_ms: float | None = None
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True)
class Load:
    """What a scenario is handed: a warm engine and what to do with it.

    queries: different ones, each an array `[samples_per_query, ...]` as `run` takes it. warmup_count, typical_ns: the
    calls before, and the median of the last of them.
    """

    run: Run
    queries: Sequence[NDArray[Any]]
    settings: Settings
    clock: Clock
    report: Report
    warmup_count: int
    typical_ns: float

    def order(self) -> list[int]:
        """Seeded random numbers of queries, to be gone through again and again (a power of two of them)."""
        drawn = np.random.default_rng(self.settings.seed).integers(len(self.queries), size=_ORDER_LENGTH)
        return [int(number) for number in drawn]


class Scenario(ABC):
    """One way of sending queries, and its metric. The catalogue is the listing of this folder."""

    name: ClassVar[str]
    official_count: ClassVar[int]
    """The fewest queries (Offline: samples) of an official run."""

    def samples_per_query(self, settings: Settings) -> int:
        """Samples in each array of `Load.queries`."""
        return 1

    @abstractmethod
    def measure(self, load: Load) -> tuple[ScenarioResult, Timeline]:
        """Send queries for as long and as many as the settings ask, and tell what came of it."""


def within(timeline: Timeline, p: float) -> Percentile | None:
    """The early-stopping estimate of percentile `p` of the latencies; None where the queries can't support it."""
    return percentile_estimate(np.sort(timeline.latency_ns / 1e6), p)


def too_few(queries: int, p: float) -> list[str]:
    """The reason why the percentile is not there, if it is not."""
    needed = early_stopping_min_count(p)
    return [f"{queries} queries are too few: p{p * 100:.0f} takes {needed}"] if queries < needed else []


def result(
    load: Load,
    timeline: Timeline,
    *,
    scenario: Scenario,
    metric: str,
    unit: Literal["ms", "queries/s", "samples/s"],
    value: float | None,
    reasons: Sequence[str],
    p: float | None,
    **more: Any,
) -> ScenarioResult:
    """The record of a timeline; p: the percentile of the metric, None where it is none."""
    count = len(timeline.latency_ns)
    size = scenario.samples_per_query(load.settings)
    told = not timeline.broken_off and p is not None
    needed = None if p is None else early_stopping_min_count(p)
    return ScenarioResult(
        scenario=scenario.name,
        samples_per_query=size,
        queries=count,
        samples=count * size,
        warmup_count=load.warmup_count,
        duration_s=timeline.duration_s,
        metric=metric,
        unit=unit,
        value=value,
        met=not reasons,
        reasons=tuple(reasons),
        early_stopping_met=None if needed is None else not timeline.broken_off and count >= needed,
        early_stopping_count=needed,
        p50=within(timeline, 0.50) if told else None,
        p90=within(timeline, 0.90) if told else None,
        p95=within(timeline, 0.95) if told else None,
        p99=within(timeline, 0.99) if told else None,
        p99_9=within(timeline, 0.999) if told else None,
        latency_ms=_milliseconds(timeline.latency_ns),
        scheduled_ms=_milliseconds(timeline.scheduled_ns),
        issued_ms=_milliseconds(timeline.issued_ns),
        **more,
    )


def _milliseconds(nanoseconds: NDArray[np.int64]) -> tuple[float, ...]:
    return tuple((nanoseconds / 1e6).tolist())
