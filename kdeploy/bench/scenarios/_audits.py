"""MLPerf's two audits: the outputs of the timed run are the real ones (TEST01), and nothing is cached (TEST04)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdeploy.bench.record import Record
from kdeploy.bench.scenarios._timeline import OutputLog
from kdeploy.bench.scenarios.base import Clock, Run

_ROUNDS = 10
_BLOCK_NS = 20e6
_LEAST_CALLS, _MOST_CALLS = 3, 200
_FASTER_ALLOWED = 0.10


class OutputsAudit(Record):
    """Whether a random sample of the timed run's outputs equals those of the accuracy run, to the last bit."""

    passed: bool
    why: str
    logged: int
    differing: int
    largest_difference: float | None
    """Between numbers of the two runs; None where it is no number, or shapes differ."""
    digest: str
    """SHA-256 of the logged outputs."""
    expected_digest: str
    """SHA-256 of the accuracy run's for the same inputs."""


class CachingAudit(Record):
    """Whether one input again and again is answered faster than different ones in turn."""

    passed: bool | None
    """None: it could not be found out."""
    why: str
    calls: int
    """Of each kind."""
    varied_ms: float | None
    """Median over the calls with different inputs."""
    repeated_ms: float | None
    faster: float | None
    """By this share the repeated input is answered faster; negative: slower."""


def accuracy_run(run: Run, queries: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """What the engine answers to each query when nobody looks at the clock; copies.

    At the scenario's own batch size: at another, sums may be rounded otherwise, and no bit is forgiven.
    """
    return [np.array(run(query)) for query in queries]


def audit_outputs(log: OutputLog, expected: Sequence[NDArray[Any]]) -> OutputsAudit:
    """Compare the outputs that a timed run has logged with those of the accuracy run; tolerance 0."""
    pairs = [(output, expected[number]) for number, output in log.kept]
    differing = [pair for pair in pairs if not _same(*pair)]
    passed = bool(pairs) and not differing
    why = f"all of {len(pairs)} logged outputs equal those of the accuracy run"
    if differing:
        why = f"{len(differing)} of {len(pairs)} logged outputs differ from those of the accuracy run"
    elif not pairs:
        why = "no output was logged: no query was answered"
    return OutputsAudit(
        passed=passed,
        why=why,
        logged=len(pairs),
        differing=len(differing),
        largest_difference=_largest_difference(pairs),
        digest=_digest([output for output, _ in pairs]),
        expected_digest=_digest([answer for _, answer in pairs]),
    )


def audit_caching(
    run: Run, queries: Sequence[NDArray[Any]], clock: Clock, typical_ns: float, seed: int
) -> CachingAudit:
    """Call with one input again and again, and with all in turn, in short blocks in random order, and compare medians.

    Blocks beside each other, because a machine's speed drifts by more than the 10 % that are allowed. As in TEST04 an
    engine that remembers as many inputs as there are looks the same on both sides.
    """
    if all(_same(queries[0], query) for query in queries):
        why = "there is one input only, so none to compare with: more images, or smaller batches, give several"
        return CachingAudit(passed=None, why=why, calls=0, varied_ms=None, repeated_ms=None, faster=None)
    calls = int(np.clip(_BLOCK_NS / typical_ns, _LEAST_CALLS, _MOST_CALLS))
    blocks: dict[bool, list[int]] = {True: [], False: []}
    for first in np.random.default_rng(seed).random(_ROUNDS) < 0.5:
        for repeated in (bool(first), not first):
            _block(run, queries[:1] if repeated else queries, calls, clock, blocks[repeated])
    varied_ms, repeated_ms = (float(np.median(blocks[kind])) / 1e6 for kind in (False, True))
    faster = varied_ms / repeated_ms - 1 if repeated_ms > 0 else 0.0
    passed = faster <= _FASTER_ALLOWED
    comparison = f"{abs(faster):.1%} {'faster' if faster >= 0 else 'slower'} than different ones"
    return CachingAudit(
        passed=passed,
        why=f"a repeated input is answered {comparison}; {_FASTER_ALLOWED:.0%} faster is allowed",
        calls=len(blocks[True]),
        varied_ms=varied_ms,
        repeated_ms=repeated_ms,
        faster=faster,
    )


def _block(run: Run, queries: Sequence[NDArray[Any]], calls: int, clock: Clock, taken: list[int]) -> None:
    now = clock.now
    for count in range(calls):
        query = queries[count % len(queries)]
        start = now()
        run(query)
        taken.append(now() - start)


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def _largest_difference(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> float | None:
    if not pairs or any(one.shape != other.shape for one, other in pairs):
        return None
    with np.errstate(invalid="ignore"):
        largest = max(float(np.max(np.abs(one - other.astype(np.float64)), initial=0.0)) for one, other in pairs)
    return largest if np.isfinite(largest) else None


def _digest(outputs: Sequence[NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for output in outputs:
        digest.update(f"{output.dtype.str}{output.shape}".encode())
        digest.update(output.tobytes())
    return digest.hexdigest()
