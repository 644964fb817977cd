"""MLPerf's scenarios, one a file: the catalogue is this folder's listing.

A scenario's file holds one subclass of `base.Scenario` whose `name` is the file's own, with hyphens. Files that begin
with an underscore are private and no scenarios. `run_scenario` runs one by name on any callable, and adds the audits;
`measure_engine` does so for an open engine, as the measuring child wants it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdeploy.bench.inputs import Layout, inputs_for
from kdeploy.bench.record import Record
from kdeploy.bench.scenarios._audits import (
    CachingAudit,
    OutputsAudit,
    accuracy_run,
    audit_caching,
    audit_outputs,
)
from kdeploy.bench.scenarios._clock import WallClock
from kdeploy.bench.scenarios.base import (
    OFFICIAL_TIME_S,
    Clock,
    Load,
    Report,
    Run,
    Scenario,
    ScenarioResult,
    Settings,
)
from kdeploy.bench.warming import no_garbage_collection, warm_up
from kdeploy.errors import UserError, nearest
from kdeploy.plugins import is_subclass

__all__ = [
    "Audited",
    "CachingAudit",
    "OutputsAudit",
    "ScenarioResult",
    "Settings",
    "WallClock",
    "check",
    "find",
    "in_pieces",
    "measure_engine",
    "names",
    "official",
    "prepare",
    "run_scenario",
]


class Audited(Record):
    """What a scenario measured, and whether to believe it."""

    result: ScenarioResult
    outputs: OutputsAudit
    caching: CachingAudit


def names() -> list[str]:
    """The scenarios that kdeploy knows, sorted."""
    files = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name.replace("_", "-") for name in files if name != "base" and not name.startswith("_"))


def find(name: str) -> Scenario:
    """The scenario of this name. Raises UserError for an unknown one."""
    if name not in names():
        raise UserError(f"There is no scenario {name!r}.{nearest(name, names())}")
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    classes = [value for value in vars(module).values() if is_subclass(value, Scenario)]
    scenario: Scenario = next(found for found in classes if getattr(found, "name", None) == name)()
    return scenario


def check(asked: Sequence[str], *, rate: float | None = None, bound_ms: float | None = None) -> None:
    """Raise UserError for an unknown scenario, and for a rate or a bound that none of those asked for takes."""
    for name in asked:
        find(name)
    for option, value in (("--rate", rate), ("--bound-ms", bound_ms)):
        if value is not None and "server" not in asked:
            raise UserError(f"{option} is for the scenario server alone: add --scenario server, or leave it out.")


def official(name: str, settings: Settings) -> Settings:
    """The settings with the duration and the counts of an official run: 600 s, and 24,576 samples for Offline."""
    return settings.model_copy(update={"min_time_s": OFFICIAL_TIME_S, "min_count": find(name).official_count})


def run_scenario(
    name: str,
    run: Run,
    queries: Sequence[NDArray[Any]],
    settings: Settings,
    *,
    clock: Clock | None = None,
    report: Report = lambda share: None,
) -> Audited:
    """Accuracy run, warm-up, the scenario itself, and both audits.

    run: one synchronous inference, which gives the same outputs for the same inputs; queries: different inputs, each
    `[samples_per_query, ...]`. The clock is the wall's unless another is given. Python's garbage collector is off
    meanwhile. Raises UserError for an unknown scenario, ValueError for queries of another size.
    """
    scenario, clock = find(name), clock or WallClock()
    size = scenario.samples_per_query(settings)
    if not queries or any(len(query) != size for query in queries):
        raise ValueError(f"{name} wants queries of {size} samples, not {[len(query) for query in queries]}")
    with no_garbage_collection():
        expected = accuracy_run(run, queries)
        warm = warm_up(run, queries, settings.min_time_s, clock.now)
        load = Load(run, queries, settings, clock, report, warm.calls, warm.typical_ns)
        result, timeline = scenario.measure(load)
        caching = audit_caching(run, queries, clock, warm.typical_ns, settings.seed)
    return Audited(result=result, outputs=audit_outputs(timeline.log, expected), caching=caching)


def measure_engine(
    name: str,
    run: Run,
    layout: Layout,
    images: NDArray[np.uint8] | None,
    settings: Settings,
    report: Report = lambda share: None,
) -> Audited:
    """Run a scenario on an open engine: `run` is its session's.

    images: uint8 `[N, H, W, C]` to make inputs of, None for seeded noise. A file that takes one batch size alone gets
    each query in pieces of it. Raises UserError where a query is no whole number of such pieces.
    """
    queries = prepare(name, layout, images, settings)
    return run_scenario(name, in_pieces(run, layout, len(queries[0])), queries, settings, report=report)


def prepare(name: str, layout: Layout, images: NDArray[np.uint8] | None, settings: Settings) -> list[NDArray[Any]]:
    """Different queries of the scenario, each `[samples_per_query, ...]`, as the engine takes them."""
    return inputs_for(layout, find(name).samples_per_query(settings), images, seed=settings.seed)


def in_pieces(run: Run, layout: Layout, samples: int) -> Run:
    """`run` for queries of so many samples, which calls it several times where the file takes fewer at once."""
    batch = layout.batch
    if batch is None or batch == samples:
        return run
    if samples % batch:
        raise UserError(
            f"The file takes batches of {batch} only, and a query of {samples} samples is no whole number of them. "
            "Export it with an open batch dimension."
        )

    def run_pieces(query: NDArray[Any]) -> NDArray[Any]:
        # Copies, because a runtime may answer the next piece in the same memory.
        return np.concatenate([np.array(run(query[at : at + batch])) for at in range(0, samples, batch)])

    return run_pieces
