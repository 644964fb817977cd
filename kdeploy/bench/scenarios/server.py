"""Server: queries arrive as a Poisson process and wait in line, as from many users who do not know of each other."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kdeploy.bench.scenarios._rates import highest_rate
from kdeploy.bench.scenarios._timeline import OutputLog, Timeline, since
from kdeploy.bench.scenarios.base import Attempt, Load, Scenario, ScenarioResult, result, too_few, within
from kdeploy.bench.statistics import early_stopping_min_count, percentile_estimate

_P = 0.99
_REPORT_EVERY_NS = 1_000_000_000
_TRIAL_SHARE = 0.2
"""Of the least duration: how long the search tries a rate."""
_STEP_DOWN = 0.97
_RUNS = 10
"""So many whole runs, each at a lower rate than the one before, before the search gives up."""
_PATIENCE = 2.0
"""How many times as long as its schedule a run may take."""


class Server(Scenario):
    """The metric is the rate of answers with whose arrivals p99 stays within the bound.

    p99 is the early-stopping estimate of the latency from the scheduled time, which is at least as strict as LoadGen:
    that would let one query more be late. It takes 662 queries, so a run never has fewer.
    """

    name = "server"
    official_count = 662  # by early stopping

    def measure(self, load: Load) -> tuple[ScenarioResult, Timeline]:
        rate = load.settings.rate
        if rate is None:
            return _search(load)
        timeline = _run(load, rate)
        return _record(load, rate, timeline, _reasons(load, rate, timeline)), timeline


def arrivals(rate: float, min_time_s: float, min_count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """A Poisson process of `rate` a second: nanoseconds, int64 `[count]`, the first at 0.

    As in LoadGen it ends with the first arrival at or after `min_time_s` that is at least the `min_count`-th.
    """
    least_ns = min_time_s * 1e9
    times = np.zeros(1)
    while times[-1] < least_ns or len(times) < min_count:
        missing = max(min_count - len(times), math.ceil((least_ns - times[-1]) * rate / 1e9), 1)
        gaps = generator.exponential(1e9 / rate, missing + math.isqrt(missing))
        times = np.concatenate([times, times[-1] + np.cumsum(gaps)])
    count = max(min_count, int(np.searchsorted(times, least_ns)) + 1)
    return times[:count].astype(np.int64)


def _search(load: Load) -> tuple[ScenarioResult, Timeline]:
    """Short trials find the rate, as LoadGen does by the share of late answers; a whole run confirms it.

    Where early stopping wants a rate a little lower, the next whole run gets one.
    """
    short = load.settings.model_copy(update={"min_time_s": _TRIAL_SHARE * load.settings.min_time_s})
    trial = replace(load, settings=short)
    attempts: list[Attempt] = []

    def note(rate: float, timeline: Timeline, met: bool) -> bool:
        late = int(np.sum(timeline.latency_ns > load.settings.bound_ms * 1e6))
        attempts.append(Attempt(rate=rate, queries=len(timeline.latency_ns), late=late, met=met))
        return met

    def try_out(rate: float) -> bool:
        timeline = _run(trial, rate, seed=len(attempts), late_allowed=lambda count: int((1 - _P) * count))
        return note(rate, timeline, not timeline.broken_off)

    # It takes two trials to turn a rate down: a single stall of the machine shall not.
    rate = highest_rate(lambda rate: try_out(rate) or try_out(rate), capacity=1e9 / load.typical_ns)
    if rate is None:
        why = f"p99 is above {load.settings.bound_ms:g} ms even at {attempts[-1].rate:.4g} queries/s"
        nothing = np.empty(0, dtype=np.int64)
        timeline = Timeline(nothing, nothing, nothing, OutputLog(), broken_off=True)
        return _record(load, attempts[-1].rate, timeline, [why], attempts), timeline
    for step in range(_RUNS):
        lower = rate * _STEP_DOWN**step
        timeline = _run(load, lower, seed=len(attempts), late_allowed=_late_allowed)
        reasons = _reasons(load, lower, timeline)
        if note(lower, timeline, not reasons):
            break
    return _record(load, lower, timeline, reasons, attempts), timeline


def _run(
    load: Load, rate: float, *, seed: int = 0, late_allowed: Callable[[int], int] = lambda count: count
) -> Timeline:
    """One run at `rate`; `seed` beside that of the settings gives each attempt of a search a schedule of its own.

    late_allowed: of so many queries, how many may be above the bound before the run is given up.
    """
    settings = load.settings
    count = max(settings.min_count, early_stopping_min_count(_P))
    schedule = arrivals(rate, settings.min_time_s, count, np.random.default_rng([settings.seed, seed]))
    return serve(load, schedule, late_allowed=late_allowed(len(schedule)))


def serve(load: Load, schedule: NDArray[np.int64], *, late_allowed: int) -> Timeline:
    """Answer the queries one by one, each when it is due or, where the engine is still busy, as soon as it is free.

    The run is given up when more than `late_allowed` answers are above the bound, and when it takes twice as long as
    its schedule: then the line grows without end.
    """
    run, queries, clock, order = load.run, load.queries, load.clock, load.order()
    now, last, bound_ns = clock.now, len(order) - 1, load.settings.bound_ms * 1e6
    log = OutputLog(seed=load.settings.seed)
    scheduled, issued, answered = array("q"), array("q"), array("q")
    late, given_up = 0, False
    longest_ns = _PATIENCE * max(float(schedule[-1]), 1e9)
    begin = report_at = now()
    for count, due_in in enumerate(schedule.tolist()):
        due = begin + due_in
        start = now()
        if start < due:
            if start >= report_at:  # nobody waits in line now
                load.report(count / len(schedule))
                report_at = start + _REPORT_EVERY_NS
            start = clock.wait_until(due)
        number = order[count & last]
        output = run(queries[number])
        end = now()
        scheduled.append(due)
        issued.append(start)
        answered.append(end)
        if count == log.next:
            log.keep(number, output)
        late += end - due > bound_ns
        given_up = late > late_allowed or end - begin > longest_ns
        if given_up:
            break
    return Timeline(since(begin, scheduled), since(begin, issued), since(begin, answered), log, given_up)


def _reasons(load: Load, rate: float, timeline: Timeline) -> list[str]:
    """Why p99 of this run is not within the bound, if it is not."""
    count, bound_ms = len(timeline.latency_ns), load.settings.bound_ms
    at = f"at {rate:.4g} queries/s"
    if timeline.broken_off:
        return [f"{at} the engine does not keep up with a bound of {bound_ms:g} ms: given up after {count} queries"]
    p99 = within(timeline, _P)
    if p99 is not None and p99.value_ms > bound_ms:
        return [f"{at} p99 is {p99.value_ms:.3g} ms, above {bound_ms:g} ms"]
    return too_few(count, _P)


def _record(
    load: Load, rate: float, timeline: Timeline, reasons: Sequence[str], attempts: Sequence[Attempt] = ()
) -> ScenarioResult:
    return result(
        load,
        timeline,
        scenario=Server(),
        metric=f"answers with p99 within {load.settings.bound_ms:g} ms",
        unit="queries/s",
        value=None if reasons else (len(timeline.latency_ns) - 1) / timeline.duration_s,
        reasons=reasons,
        p=_P,
        rate=rate,
        bound_ms=load.settings.bound_ms,
        attempts=tuple(attempts),
    )


def _late_allowed(count: int) -> int:
    """How many of `count` queries may be above the bound while their p99 estimate is not."""
    ranks = percentile_estimate(np.arange(1.0, count + 1), _P)
    return -1 if ranks is None else count - int(ranks.value_ms)
