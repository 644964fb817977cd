"""Offline: all samples at once, as over a folder of photographs; the engine takes them in batches."""

from __future__ import annotations

import math
from array import array

from kdeploy.bench.scenarios._timeline import OutputLog, Timeline, since
from kdeploy.bench.scenarios.base import Load, Scenario, ScenarioResult, Settings, result

_SLACK = 1.1
"""LoadGen's: so many more samples than the speed seen before says, to last for the least time."""
_TRIES = 3
_REPORT_EVERY_NS = 1_000_000_000


class Offline(Scenario):
    """The metric is the samples a second. How many samples there are is settled before the first is issued."""

    name = "offline"
    official_count = 24_576

    def samples_per_query(self, settings: Settings) -> int:
        """Of one call; all calls are one query."""
        return settings.batch

    def measure(self, load: Load) -> tuple[ScenarioResult, Timeline]:
        least_ns, batch = load.settings.min_time_s * 1e9, load.settings.batch
        calls, call_ns = 0, load.typical_ns
        for _ in range(_TRIES):
            calls = max(calls, math.ceil(load.settings.min_count / batch), math.ceil(_SLACK * least_ns / call_ns))
            timeline = _all_at_once(load, calls)
            if timeline.duration_s * 1e9 >= least_ns:
                break
            call_ns = timeline.duration_s * 1e9 / calls  # quicker than in the warm-up: it takes more samples
        short = timeline.duration_s < load.settings.min_time_s
        lasted = f"it lasted {timeline.duration_s:.3g} s, and {load.settings.min_time_s:g} s are asked for"
        made = result(
            load,
            timeline,
            scenario=self,
            metric="throughput",
            unit="samples/s",
            value=calls * batch / timeline.duration_s,
            reasons=[lasted] if short else [],
            p=None,
        )
        return made, timeline


def _all_at_once(load: Load, calls: int) -> Timeline:
    """Everything is scheduled at the begin, so that a latency says how long a sample waited for its answer."""
    run, queries, order, now = load.run, load.queries, load.order(), load.clock.now
    last = len(order) - 1
    log = OutputLog(seed=load.settings.seed)
    issued, answered = array("q"), array("q")
    begin = now()
    report_at = begin + _REPORT_EVERY_NS
    for count in range(calls):
        number = order[count & last]
        issued.append(now())
        output = run(queries[number])
        end = now()
        answered.append(end)
        if count == log.next:
            log.keep(number, output)
        if end >= report_at:
            load.report(count / calls)
            report_at = end + _REPORT_EVERY_NS
    return Timeline(since(begin, array("q", [begin]) * calls), since(begin, issued), since(begin, answered), log)
