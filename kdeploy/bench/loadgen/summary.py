"""What LoadGen wrote into `mlperf_log_summary.txt`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from kdeploy.bench.record import Record
from kdeploy.errors import UserError

SUMMARY = "mlperf_log_summary.txt"
_METRICS: dict[str, tuple[str, str, Literal["ms", "queries/s", "samples/s"], float]] = {
    "SingleStream": ("p90 latency", r"Early stopping 90(?:\.0)?th percentile estimate: (\d+)", "ms", 1e-6),
    "MultiStream": ("p99 latency of 8 samples", r"Early stopping 99(?:\.0)?th percentile estimate: (\d+)", "ms", 1e-6),
    "Server": ("answers", r"Completed samples per second\s*: ([\d.e+]+)", "queries/s", 1.0),
    "Offline": ("throughput", r"Samples per second: ([\d.e+]+)", "samples/s", 1.0),
}
"""By LoadGen's name of a scenario: the metric's name, where it stands, its unit, and the factor to that unit."""


class LoadgenResult(Record):
    """LoadGen's own verdict and figures."""

    scenario: str
    """As LoadGen writes it: SingleStream, MultiStream, Server, Offline."""
    loadgen: str
    """Version of mlcommons-loadgen."""
    valid: bool
    constraints: dict[str, bool]
    """Each rule with whether it was satisfied: "Min duration", "Early stopping" and so on."""
    metric: str
    unit: Literal["ms", "queries/s", "samples/s"]
    value: float | None
    """None: LoadGen does not give it for so few queries."""
    percentiles_ms: dict[str, float]
    """Of its latencies, by percentile ("50.00"), as they are; for MultiStream those of queries."""
    recommendations: tuple[str, ...]
    parameters: dict[str, str]
    """The settings that it used."""
    folder: str
    """Where its logs lie."""


def read_summary(folder: Path, version: str) -> LoadgenResult:
    """Read LoadGen's summary in `folder`. Raises UserError where there is none, or it has no verdict."""
    path = folder / SUMMARY
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"LoadGen left no summary at {path}: {error.strerror}.") from None
    verdict = re.search(r"^Result is : (VALID|INVALID)$", text, re.MULTILINE)
    scenario = re.search(r"^Scenario : (.+)$", text, re.MULTILINE)
    if verdict is None or scenario is None:
        raise UserError(f"{path} has no verdict: LoadGen was ended before its test was over. Run it again.")
    name = scenario[1].replace(" ", "")
    metric, pattern, unit, factor = _METRICS[name]
    found = re.search(pattern, text)
    constraints = {
        rule: answer == "Yes" for rule, answer in re.findall(r"^  (\S.*?) satisfied ?: (Yes|NO)$", text, re.MULTILINE)
    }
    if found is None and constraints.get("Early stopping", True):
        raise UserError(
            f"{path} does not give the {metric} as LoadGen 5 and 6 do. Install one: mlcommons-loadgen==6.0.17."
        )
    return LoadgenResult(
        scenario=name,
        loadgen=version,
        valid=verdict[1] == "VALID",
        constraints=constraints,
        metric=metric,
        unit=unit,
        value=None if found is None else float(found[1]) * factor,
        percentiles_ms={
            percentile: int(value) / 1e6
            for percentile, value in re.findall(r"^(\d+\.\d+) percentile latency \(ns\)\s*: (\d+)$", text, re.MULTILINE)
        },
        recommendations=_recommendations(text),
        parameters=dict(re.findall(r"^(\S.*?)\s*: (.*)$", text.partition("Test Parameters Used")[2], re.MULTILINE)),
        folder=str(folder),
    )


def _recommendations(text: str) -> tuple[str, ...]:
    """The lines between "Recommendations:" and the next heading, one a star."""
    _, found, rest = text.partition("\nRecommendations:\n")
    if not found:
        return ()
    listed = re.split(r"\n(?! )", rest)[0]
    return tuple(" ".join(part.split()) for part in listed.split(" * ") if part.strip())
