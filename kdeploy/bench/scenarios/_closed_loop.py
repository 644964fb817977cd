"""One query after another, each issued when the one before is answered."""

from __future__ import annotations

from array import array

from kdeploy.bench.scenarios._timeline import OutputLog, Timeline, since
from kdeploy.bench.scenarios.base import Load, Scenario, ScenarioResult, result, too_few, within

_REPORT_EVERY_NS = 1_000_000_000


def latency_at(p: float, load: Load, scenario: Scenario, metric: str) -> tuple[ScenarioResult, Timeline]:
    """Run the closed loop; the metric is a percentile of a query's latency, by early stopping."""
    timeline = closed_loop(load)
    found = within(timeline, p)
    made = result(
        load,
        timeline,
        scenario=scenario,
        metric=metric,
        unit="ms",
        value=None if found is None else found.value_ms,
        reasons=too_few(len(timeline.latency_ns), p),
        p=p,
    )
    return made, timeline


def closed_loop(load: Load) -> Timeline:
    """Send queries for at least `min_time_s` and `min_count` of them; each is scheduled when it is issued.

    What happens between two queries (logging, reporting) is outside the clock, as in LoadGen.
    """
    run, queries, settings, order = load.run, load.queries, load.settings, load.order()
    now, last = load.clock.now, len(order) - 1
    log = OutputLog(seed=settings.seed)
    issued, answered = array("q"), array("q")
    least_ns = int(settings.min_time_s * 1e9)
    count = 0
    begin = now()
    report_at = begin + _REPORT_EVERY_NS
    while True:
        number = order[count & last]
        query = queries[number]
        start = now()
        output = run(query)
        end = now()
        issued.append(start)
        answered.append(end)
        if count == log.next:
            log.keep(number, output)
        count += 1
        if count >= settings.min_count and end - begin >= least_ns:
            relative = since(begin, issued)
            return Timeline(relative, relative, since(begin, answered), log)
        if end >= report_at:
            load.report(min((end - begin) / least_ns, count / settings.min_count, 1.0))
            report_at = end + _REPORT_EVERY_NS
