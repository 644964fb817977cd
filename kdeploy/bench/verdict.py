"""Whether a measurement can be believed: rules over what was recorded, each a pure function."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast, get_args

import numpy as np

from kdeploy.bench.results import Latency, Measurement, Verdict, Watched
from kdeploy.bench.scenarios import Audited
from kdeploy.bench.statistics import early_stopping_min_count
from kdeploy.engines import in_precision
from kdeploy.engines.base import Precision
from kdeploy.machine.conditions import Conditions

_LEAST_CALLS = early_stopping_min_count(0.90)
_DRIFT = 0.05
"""How far the medians of a run's halves may lie apart."""
_CLOCK = 0.02
"""How far the clock may move."""
_FOREIGN = 0.05
"""What share of the cores others may use, and a hypervisor take."""
_SHORTEST_S = 1.0
"""Processor time is counted in ticks of 10 ms: of a shorter run, a share of 5 % could not be told from none."""


def judge(found: Measurement) -> Verdict:
    """VALID or INVALID, with the reasons, and what is only a warning.

    Neither, where the processor is emulated and nothing was timed: then only what it computed can be INVALID.
    """
    if found.emulated is not None:
        other = (*_other_provider(found.session), *_other_precision(found))
        return Verdict(valid=False if other else None, reasons=other, warnings=())
    cores = (found.session.get("pinned") or {}).get("cores")
    reasons = [*_emulated(found.machine), *_other_provider(found.session), *_other_precision(found)]
    warnings = [*_of_the_machine(found.machine), *_unpinned(found.session)]
    reasons += [reason for audited in found.scenarios for reason in _of_scenario(audited)]
    for audited, watched in zip(found.scenarios, found.scenarios_watched, strict=False):
        reasons += [f"{audited.result.scenario}: {reason}" for reason in _of_conditions(watched, cores)]
    for latency in found.latency:
        where = f"batch {latency.batch}: " if len(found.latency) > 1 else ""
        reasons += [where + reason for reason in _of_latency(latency, cores)]
    warnings += [
        f"batch {latency.batch}: the latency had not settled when the warm-up ended"
        for latency in found.latency
        if latency.settled is False
    ]
    warnings += dict.fromkeys(text for latency in found.latency for text in _of_watching(latency.watched))
    return Verdict(valid=not reasons, reasons=tuple(reasons), warnings=tuple(warnings))


def foreign_share(before: Conditions, after: Conditions, cores: list[int] | None) -> float | None:
    """What share of the time others worked: on the pinned cores, or on all if that is more; stolen time counts.

    None where it cannot be read, or the time between is too short to tell.
    """
    elapsed = after.at_s - before.at_s
    worked = {
        core: after.processor_s[core] - at for core, at in before.processor_s.items() if core in after.processor_s
    }
    if elapsed < _SHORTEST_S or not worked:
        return None
    own = after.own_s - before.own_s
    shares = [(sum(worked.values()) - own) / (elapsed * len(worked))]
    if cores and all(core in worked for core in cores):
        shares.append((sum(worked[core] for core in cores) - own) / (elapsed * len(cores)))
    return max(0.0, *shares)


def _of_latency(latency: Latency, cores: list[int] | None) -> Iterator[str]:
    if latency.count < _LEAST_CALLS:
        yield f"only {latency.count} calls, and even p90 wants {_LEAST_CALLS}: measure longer"
    yield from _drift(latency)
    if latency.watched is not None:
        yield from _of_conditions(latency.watched, cores)


def _of_scenario(audited: Audited) -> Iterator[str]:
    result = audited.result
    yield from (f"{result.scenario}: {reason}" for reason in result.reasons)
    if not audited.outputs.passed:
        yield f"{result.scenario}: other outputs in the timed run than in the accuracy run"
    if audited.caching.passed is False:
        yield f"{result.scenario}: the engine seems to cache what it has seen"


def _drift(latency: Latency) -> Iterator[str]:
    half = latency.count // 2
    first, second = (float(np.median(part)) for part in (latency.samples_ms[:half], latency.samples_ms[half:]))
    if abs(second - first) > _DRIFT * min(first, second):
        change = second / first - 1
        yield f"the second half's median is {change:+.1%} from the first's"


def _of_conditions(watched: Watched, cores: list[int] | None) -> Iterator[str]:
    before, after = watched.before, watched.after
    clock = watched.frequency_mhz
    if clock and max(clock) - min(clock) > _CLOCK * max(clock):
        yield f"the clock moved between {min(clock):.0f} and {max(clock):.0f} MHz"
    for name, count in after.throttle_counts.items():
        if count > before.throttle_counts.get(name, count):
            yield f"the processor was throttled meanwhile ({name})"
    for name, state in after.throttle_states.items():
        if state > 0 or before.throttle_states.get(name, 0) > 0:
            yield f"the processor is held back ({name})"
    share = foreign_share(before, after, cores)
    if share is not None and share > _FOREIGN:
        yield f"other programs used {share:.0%} of the processor"
    if before.swapped_pages is not None and after.swapped_pages is not None:
        pages = after.swapped_pages - before.swapped_pages
        if pages > 0:
            yield f"the machine swapped {pages} pages meanwhile"


def _emulated(machine: dict[str, Any]) -> Iterator[str]:
    if machine.get("emulation"):
        yield f"the processor is emulated ({machine['emulation']}): its latencies mean nothing"


def _other_provider(session: dict[str, Any]) -> Iterator[str]:
    """Of ONNX Runtime: nodes outside of the execution provider that was asked for."""
    nodes = session.get("nodes")
    if not nodes:
        return
    asked = session.get("asked_provider", session["providers"][0])
    elsewhere = {name: count for name, count in nodes.items() if name != asked}
    if not elsewhere:
        return
    said = ", ".join(f"{count} on {name}" for name, count in elsewhere.items())
    yield f"of {sum(nodes.values())} nodes, not all run on {asked}: {said}"


def _other_precision(found: Measurement) -> Iterator[str]:
    """The operators that multiply, against the precision that the engine is named after."""
    if found.precision not in get_args(Precision):
        return  # nobody asked for one
    inside, every = in_precision(found.session.get("operators") or {}, cast("Precision", found.precision))
    enough = inside == every if found.precision == "float32" else inside > 0
    if every and not enough:
        yield f"of {every} convolutions and matrix products, {inside} run in {found.precision}"


def _of_the_machine(machine: dict[str, Any]) -> Iterator[str]:
    if machine.get("virtual_machine"):
        yield "a virtual machine, whose neighbours nobody here sees"
    if machine.get("container"):
        yield f"inside a container ({machine['container']})"


def _unpinned(session: dict[str, Any]) -> Iterator[str]:
    pinned = session.get("pinned") or {}
    if pinned.get("cores") is None:
        yield f"not pinned to cores: {pinned.get('reason', 'not recorded')}"


def _of_watching(watched: Watched | None) -> Iterator[str]:
    if watched is None:
        yield "the machine was not watched meanwhile"
        return
    after = watched.after
    others = [governor for governor in after.governors if governor != "performance"]
    if others:
        yield f"the frequency governor is {', '.join(others)}, not performance: the clock follows the load"
    unread = after.unread()
    if unread:
        yield f"this machine does not let us read: {', '.join(unread)}"
    if watched.after.at_s - watched.before.at_s < _SHORTEST_S:
        yield "too short to see what other programs used"
