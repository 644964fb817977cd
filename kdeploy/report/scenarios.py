"""What MLPerf's scenarios and LoadGen have measured, in sentences for the terminal."""

from __future__ import annotations

from kdeploy.bench.loadgen import LoadgenResult
from kdeploy.bench.record import Percentile
from kdeploy.bench.scenarios import Audited, ScenarioResult
from kdeploy.report import figures


def lines(found: Audited) -> list[str]:
    """The metric with its count and interval, or why there is none; then each audit that did not pass."""
    result = found.result
    said = [f"{result.scenario}: {_metric(result)}, {_counted(result)}."]
    said += [f"{result.scenario}: rules not met: {'; '.join(result.reasons)}."] if result.reasons else []
    if not found.outputs.passed:
        said.append(f"{result.scenario}: audit of outputs FAILED: {found.outputs.why}.")
    if found.caching.passed is False:
        said.append(f"{result.scenario}: audit of caching FAILED: {found.caching.why}.")
    elif found.caching.passed is None:
        said.append(f"{result.scenario}: caching was not audited: {found.caching.why}.")
    return said


def loadgen_lines(found: LoadgenResult) -> list[str]:
    """LoadGen's own verdict and metric, and its advice."""
    verdict = "VALID" if found.valid else "INVALID"
    said = [f"LoadGen {found.loadgen} {found.scenario}: {verdict}, {found.metric} {_amount(found.value, found.unit)}."]
    broken = [rule for rule, satisfied in found.constraints.items() if not satisfied]
    said += [f"LoadGen {found.scenario}: not satisfied: {', '.join(broken)}."] if broken else []
    return said + [f"LoadGen {found.scenario}: {advice}" for advice in found.recommendations]


def _metric(result: ScenarioResult) -> str:
    amount = f"{result.metric} {_amount(result.value, result.unit)}"
    if result.bound_ms is not None:
        return f"{amount}, p99 {_percentile(result.p99)}"
    decisive = {"p90": result.p90, "p99": result.p99}.get(result.metric[:3])
    return amount if decisive is None else f"{amount} {_interval(decisive)}"


def _counted(result: ScenarioResult) -> str:
    duration = figures.seconds(result.duration_s)
    if result.early_stopping_count is None:
        return f"{result.samples:,} samples in {duration}"
    return f"{result.queries:,} queries in {duration}"


def _amount(value: float | None, unit: str) -> str:
    return figures.NOT_AVAILABLE if value is None else f"{figures.significant(value)} {unit}"


def _percentile(found: Percentile | None) -> str:
    return figures.NOT_AVAILABLE if found is None else f"{figures.significant(found.value_ms)} ms {_interval(found)}"


def _interval(found: Percentile) -> str:
    return f"[{figures.significant(found.low_ms)}, {figures.significant(found.high_ms)}]"
