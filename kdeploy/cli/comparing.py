"""`kdeploy bench` of several artefacts, and against an earlier measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdeploy.bench.comparison import Comparison
    from kdeploy.bench.job import ScenariosAsked
    from kdeploy.bench.regression import Condition
    from kdeploy.bench.results import Measurement
    from kdeploy.recipe.schema import BenchSpec


def compared_in_turns(
    measured: Sequence[Measurement], paths: Mapping[str, Path], spec: BenchSpec, processes: int
) -> Comparison | None:
    """All of them called in turns, twice as long as each was measured; the first is the baseline. None of one alone."""
    from kdeploy.bench.comparison import compared
    from kdeploy.bench.interleaving import interleave, processes_that_fit

    if len(measured) < 2:
        return None
    peaks = {found.name: None if found.memory is None else found.memory.peak_bytes for found in measured}
    medians, calls, took = interleave(
        paths,
        threads=spec.threads,
        processes=processes_that_fit(peaks, processes),
        seconds=2 * spec.min_time_s * len(measured),
    )
    accuracies = {found.name: found.accuracy for found in measured}
    return compared(medians, measured[0].name, accuracies, calls, took)


def scenarios_asked(
    names: Sequence[str],
    rate: float | None,
    bound_ms: float | None,
    mlperf: bool,
    loadgen: Path | None,
    spec: BenchSpec,
) -> ScenariosAsked | None:
    """What is asked of MLPerf's scenarios. Raises UserError where options do not go together."""
    from kdeploy.bench import scenarios
    from kdeploy.bench.job import ScenariosAsked
    from kdeploy.bench.loadgen import require
    from kdeploy.errors import UserError

    scenarios.check(names, rate=rate, bound_ms=bound_ms)
    if not names:
        if mlperf or loadgen is not None:
            option = "--mlperf" if mlperf else "--loadgen"
            raise UserError(f"{option} is of MLPerf's scenarios: add --scenario single-stream, for instance.")
        return None
    if loadgen is not None:
        require()
    asked = {"min_time_s": spec.min_time_s, "min_count": spec.min_count, "rate": rate, "batch": max(spec.batch)}
    bound = {} if bound_ms is None else {"bound_ms": bound_ms}
    return ScenariosAsked(
        names=tuple(dict.fromkeys(names)),
        settings=scenarios.Settings.model_validate({**asked, **bound}),
        mlperf=mlperf,
        loadgen=None if loadgen is None else str(loadgen.resolve()),
    )


def sentences(comparison: Comparison | None, measured: Sequence[Measurement]) -> list[str]:
    """What a comparison says, a line for each side."""
    from kdeploy.bench.comparison import sentence
    from kdeploy.report.rows import display_name

    if comparison is None:
        return []
    names = {found.name: display_name(found) for found in measured}
    return [sentence(side, names, comparison.baseline) for side in comparison.sides]


def conditions(against: Path | None, fail_if: Sequence[str]) -> tuple[list[Measurement], list[Condition]] | None:
    """The baseline and what must hold, read before anything is measured. Raises UserError where one lacks the other."""
    from kdeploy import artifacts
    from kdeploy.bench.regression import measurements_of, parse
    from kdeploy.errors import UserError

    if against is None and not fail_if:
        return None
    if against is None:
        raise UserError("--fail-if needs what to compare with: --against FILE, which kdeploy bench --json FILE wrote.")
    if not fail_if:
        raise UserError("--against needs what to look at: --fail-if 'p50 > 3%', for instance.")
    asked = [parse(text) for text in fail_if]
    return measurements_of(artifacts.read_json(against), against), asked
