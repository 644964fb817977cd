"""A machine against the profile of its board."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kdeploy.machine.boards.schema import Board, Check
from kdeploy.machine.conditions import Conditions
from kdeploy.machine.findings import Finding

_POWER_MODE = "NV Power Mode:"
UNREAD = "This machine does not let us read it."
"""The detail of a check that can't be made."""


def judge_board(
    board: Board, machine: Mapping[str, Any], conditions: Conditions, power_mode: str | None, *, recognised: bool
) -> Iterator[Finding]:
    """What suits the board, what of its checks does not hold here, and what to know of it.

    machine: its fingerprint. power_mode: as `read_power_mode` has it. recognised: whether this machine is the board.
    """
    uses = "; ".join(f"{one.engine} {one.precision}" + (f" ({one.scheme})" if one.scheme else "") for one in board.use)
    yield Finding(level="ok", what=f"board {board.name}", detail=f"{board.about}. Suits it: {uses}.")
    if not recognised:
        here = machine.get("board") or machine.get("processor")
        detail = f"This machine is {here}, and not that board: what follows compares the two all the same."
        yield Finding(level="note", what="another machine", detail=detail)
    if (usable := machine["cores"]["usable"]) < board.threads.count:
        detail = f"{board.threads.count} threads suit it, and {usable} cores may be used here."
        yield Finding(level="note", what="threads", detail=detail, source=board.threads.source)
    else:
        detail = f"{board.threads.count} suit it (`--threads {board.threads.count}`)."
        yield Finding(level="ok", what="threads", detail=detail, source=board.threads.source)
    for check in board.checks:
        yield _CHECKS[check.what](check, conditions, power_mode)
    for warned in board.warnings:
        yield Finding(level="note", what="to know", detail=warned.says, source=warned.source)


def read_power_mode() -> str | None:
    """The power mode of a Jetson ("MAXN", "15W"), from `nvpmodel -q`; None where there is no such program or answer."""
    try:
        answer = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = (line for line in answer.stdout.splitlines() if line.startswith(_POWER_MODE))
    return next((line.removeprefix(_POWER_MODE).strip() or None for line in lines), None)


def _governor(check: Check, conditions: Conditions, power_mode: str | None) -> Finding:
    if not conditions.governors:
        return _unread(check)
    others = [governor for governor in conditions.governors if governor not in check.wanted]
    return _found(check, ", ".join(conditions.governors), holds=not others, wanted=" or ".join(check.wanted))


def _power_mode(check: Check, conditions: Conditions, power_mode: str | None) -> Finding:
    if power_mode is None:
        return _unread(check)
    return _found(check, power_mode, holds=power_mode in check.wanted, wanted=" or ".join(check.wanted))


def _throttling(check: Check, conditions: Conditions, power_mode: str | None) -> Finding:
    states, counts = conditions.throttle_states, conditions.throttle_counts
    if not (states or counts):
        return _unread(check)
    now = [name for name, state in states.items() if state]
    before = [f"{name}, since it was started" for name, count in counts.items() if count]
    return _found(check, ", ".join([*now, *before]) or "none", holds=not (now or before), wanted="none")


def _temperature(check: Check, conditions: Conditions, power_mode: str | None) -> Finding:
    if not conditions.temperature_c or check.below_c is None:
        return _unread(check)
    name, hottest = max(conditions.temperature_c.items(), key=lambda pair: pair[1])
    said = f"{hottest:.0f} °C ({name})"
    return _found(check, said, holds=hottest < check.below_c, wanted=f"below {check.below_c:.0f} °C")


_CHECKS: dict[str, Callable[[Check, Conditions, str | None], Finding]] = {
    "governor": _governor,
    "power mode": _power_mode,
    "throttling": _throttling,
    "temperature": _temperature,
}


def _found(check: Check, said: str, *, holds: bool, wanted: str) -> Finding:
    if holds:
        return Finding(level="ok", what=check.what, detail=said, source=check.source)
    detail = f"{said}; for measurements: {wanted}."
    return Finding(level="note", what=check.what, detail=detail, fix=check.fix, source=check.source)


def _unread(check: Check) -> Finding:
    return Finding(
        level="note",
        what=check.what,
        detail=UNREAD,
        fix=check.fix,
        source=check.source,
    )
