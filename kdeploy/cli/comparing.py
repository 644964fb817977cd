"""`kdeploy bench` besides single latencies: several artefacts, layers, scenarios, an earlier measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdeploy.bench.artifacts import Artifact
    from kdeploy.bench.comparison import Comparison
    from kdeploy.bench.job import ScenariosAsked
    from kdeploy.bench.layers import LayerProfile
    from kdeploy.bench.regression import Condition
    from kdeploy.bench.results import Measurement
    from kdeploy.recipe.schema import BenchSpec


def compared_in_turns(
    measured: Sequence[Measurement], paths: Mapping[str, Path], spec: BenchSpec, processes: int
) -> Comparison | None:
    """All of them called in turns, twice as long as each was measured; the first is the baseline. None of one alone.

    On an emulated processor accuracies are compared and nothing is timed.
    """
    from kdeploy import events
    from kdeploy.bench.comparison import compared, untimed
    from kdeploy.bench.interleaving import interleave, processes_that_fit

    if len(measured) < 2:
        return None
    accuracies = {found.name: found.accuracy for found in measured}
    if measured[0].emulated is not None:
        events.decided("comparison", "accuracy alone", "on an emulated processor nobody can say which is faster")
        return untimed(accuracies, measured[0].name)
    peaks = {found.name: None if found.memory is None else found.memory.peak_bytes for found in measured}
    medians, calls, took = interleave(
        paths,
        threads=spec.threads,
        processes=processes_that_fit(peaks, processes),
        seconds=2 * spec.min_time_s * len(measured),
    )
    return compared(medians, measured[0].name, accuracies, calls, took)


def profiled(found: Sequence[Artifact], threads: int, out: Path | None) -> list[LayerProfile]:
    """Each by layer, kept in `out` with the plot of all."""
    from kdeploy import artifacts as files
    from kdeploy.bench.profiling import profile_all
    from kdeploy.report.charts.profile import draw

    profiles = list(profile_all(found, threads=threads))
    if out is not None and profiles:
        for one in profiles:
            files.write_json(out / f"{one.name}.layers.json", one.model_dump(mode="json"))
        files.write_text(out / "layers.svg", draw(profiles))
    return profiles


def require_clock(scenario: Sequence[str], layers: bool, asked: Sequence[Condition]) -> None:
    """Raise Unavailable where what is asked for is measured by the clock, or is memory, and the processor is emulated.

    Before anything is measured: a condition that nobody could judge would let everything pass.
    """
    from kdeploy.bench.emulation import require_real
    from kdeploy.bench.regression import UNCLOCKED

    words = [*(["--scenario"] if scenario else []), *(["--layers"] if layers else [])]
    words += [f"--fail-if '{one.text}'" for one in asked if one.what not in UNCLOCKED]
    if words:
        require_real(" and ".join(words))


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
