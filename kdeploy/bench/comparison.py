"""Is one engine faster than another? The decision, from medians of blocks that were interleaved: pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kdeploy.bench.record import Record
from kdeploy.bench.results import Accuracy
from kdeploy.bench.statistics import mcnemar, t_quantile

CONFIDENCE = 0.99
_CHANCE = 0.01
"""Below it, a disagreement is more than chance would have it."""
_DRAWS = 1000

Decision = Literal["faster", "slower", "no difference shown", "not timed"]
"""The last: on an emulated processor, where only accuracies are compared."""


class Disagreement(Record):
    """Two engines on the same labelled samples."""

    only_baseline: int
    """Samples that the baseline alone got right."""
    only_this: int
    p_value: float
    """McNemar's exact test: how likely so unequal a disagreement is, were they equally accurate."""


class Compared(Record):
    """One side against the baseline."""

    name: str
    ratio: float | None
    """Its median latency over the baseline's: 0.5 is twice as fast. None: not timed."""
    low: float | None
    high: float | None
    """The interval at 99 % confidence for all sides together, so wider where there are several."""
    decision: Decision
    disagreement: Disagreement | None
    """None: not measured on the same labelled samples."""


class Comparison(Record):
    """Several artefacts, called in turns."""

    baseline: str
    sides: tuple[Compared, ...]
    processes: int
    """Fresh ones, of each side; 0 here and below: not timed."""
    rounds: int
    """Blocks of each process."""
    calls: dict[str, int]
    """Of each block, by side."""
    duration_s: float
    block_medians_ms: dict[str, tuple[tuple[float, ...], ...]]
    """By side, for each process, the median of each block in order."""


def decide(
    medians_ms: Mapping[str, NDArray[np.float64]], baseline: str, seed: int = 0
) -> dict[str, tuple[float, float, float, Decision]]:
    """For each other side, its ratio to the baseline, the interval's ends, and what they say.

    medians_ms: by side, `[processes, rounds]`, at least 2 processes; the blocks of one round were made in one stretch.

    The machine's own speed drifts from round to round by more than engines differ, and by less within one: so each
    round is measured against its own mean over all blocks. A process is its median over rounds, a side the mean of its
    processes, all in logarithms. The standard error is that of a bootstrap over processes and, jointly for all sides,
    rounds; as few processes vary less among themselves than they should, it is widened by sqrt(n / (n - 1)), and
    Student's t stands in for the normal quantile (Hesterberg 2015, section 5.1). The level is divided among the sides
    (Bonferroni).
    """
    logs = {name: np.log(found) for name, found in medians_ms.items()}
    of_round = np.mean(np.concatenate(list(logs.values())), axis=0)
    levels = {name: found - of_round for name, found in logs.items()}
    risk = (1 - CONFIDENCE) / max(1, len(levels) - 1)
    return {
        name: _against(levels[baseline], found, risk, np.random.default_rng(seed))
        for name, found in levels.items()
        if name != baseline
    }


def _against(
    baseline: NDArray[np.float64], other: NDArray[np.float64], risk: float, generator: np.random.Generator
) -> tuple[float, float, float, Decision]:
    difference = _level(other) - _level(baseline)
    rounds = generator.integers(0, baseline.shape[1], (_DRAWS, baseline.shape[1]))
    drawn = _drawn_levels(other, rounds, generator) - _drawn_levels(baseline, rounds, generator)
    fewest = min(len(baseline), len(other))
    degrees = len(baseline) + len(other) - 2
    reach = t_quantile(1 - risk / 2, degrees) * math.sqrt(fewest / (fewest - 1)) * float(drawn.std(ddof=1))
    low, high = math.exp(difference - reach), math.exp(difference + reach)
    decision: Decision = "faster" if high < 1 else "slower" if low > 1 else "no difference shown"
    return math.exp(difference), low, high, decision


def _level(side: NDArray[np.float64]) -> float:
    """side: `[processes, rounds]`."""
    return float(np.median(side, axis=1).mean())


def _drawn_levels(
    side: NDArray[np.float64], rounds: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.float64]:
    """The side's level in each draw `[draws]`: of these rounds `[draws, rounds]`, and of processes drawn anew."""
    of_process = np.stack([np.median(process[rounds], axis=1) for process in side])  # [processes, draws]
    chosen = generator.integers(0, len(side), of_process.shape)
    return np.asarray(np.take_along_axis(of_process, chosen, axis=0).mean(axis=0))


def disagreement(baseline: Accuracy | None, other: Accuracy | None) -> Disagreement | None:
    """How two engines disagree, where both were measured on the same split and say which samples they got wrong."""
    if baseline is None or other is None or baseline.wrong is None or other.wrong is None:
        return None
    if not baseline.of_the_same_data(other):
        return None
    first, second = set(baseline.wrong), set(other.wrong)
    only_baseline, only_this = len(second - first), len(first - second)
    return Disagreement(only_baseline=only_baseline, only_this=only_this, p_value=mcnemar(only_baseline, only_this))


def compared(
    medians_ms: Mapping[str, NDArray[np.float64]],
    baseline: str,
    accuracies: Mapping[str, Accuracy | None],
    calls: Mapping[str, int],
    duration_s: float,
) -> Comparison:
    """The record of a comparison that was made."""
    first = medians_ms[baseline]
    return Comparison(
        baseline=baseline,
        sides=tuple(
            Compared(
                name=name,
                ratio=ratio,
                low=low,
                high=high,
                decision=decision,
                disagreement=disagreement(accuracies.get(baseline), accuracies.get(name)),
            )
            for name, (ratio, low, high, decision) in decide(medians_ms, baseline).items()
        ),
        processes=first.shape[0],
        rounds=first.shape[1],
        calls=dict(calls),
        duration_s=duration_s,
        block_medians_ms={name: _rows(found) for name, found in medians_ms.items()},
    )


def untimed(accuracies: Mapping[str, Accuracy | None], baseline: str) -> Comparison:
    """The record where nothing can be timed: who is right where the other is wrong."""
    return Comparison(
        baseline=baseline,
        sides=tuple(
            Compared(
                name=name,
                ratio=None,
                low=None,
                high=None,
                decision="not timed",
                disagreement=disagreement(accuracies[baseline], found),
            )
            for name, found in accuracies.items()
            if name != baseline
        ),
        processes=0,
        rounds=0,
        calls={},
        duration_s=0.0,
        block_medians_ms={},
    )


def _rows(medians: NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in medians.tolist())


def sentence(found: Compared, names: Mapping[str, str], baseline: str) -> str:
    """What a comparison says, for people."""
    one, other = names.get(found.name, found.name), names.get(baseline, baseline)
    if found.decision == "not timed":
        said = f"{one} and {other}: which is faster is not measured"
    elif found.decision == "no difference shown":
        said = f"{one}: no difference from {other} that this many calls could show"
    else:
        said = f"{one} is {found.decision} than {other}"
    if found.ratio is not None:
        interval = f"[{found.low:.4g}, {found.high:.4g}]"
        said += f": its median takes {found.ratio:.4g} times as long, 99 % interval {interval}"
    said += "."
    return said if found.disagreement is None else f"{said} {_disagree(found.disagreement)}"


def _disagree(found: Disagreement) -> str:
    """McNemar's test, for people."""
    only = found.only_baseline + found.only_this
    if only == 0:
        return "Both are right on the same images."
    more = "no more than chance would have it" if found.p_value >= _CHANCE else "more than chance would have it"
    return (
        f"Of {only} images on which one alone is right it is so on {found.only_this}, {more} "
        f"(McNemar, p = {found.p_value:.2g})."
    )
