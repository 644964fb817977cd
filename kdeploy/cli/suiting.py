"""`--for BOARD` of `kdeploy bench`: what the board's profile says, before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdeploy.machine.boards.schema import Board
    from kdeploy.machine.findings import Finding
    from kdeploy.recipe.schema import BenchSpec


def suited(spec: BenchSpec, reference: str | None, threads: int | None) -> BenchSpec:
    """The spec with the board's threads where none were asked for; what does not hold on this machine is warned of.

    reference: the name or file of a profile; None: nothing changes. threads: as asked for. Raises a UserError for a
    profile that there is not, or can't be read.
    """
    from kdeploy.machine import boards, conditions, host
    from kdeploy.machine.boards.judging import judge_board, read_power_mode

    if reference is None:
        return spec
    board = boards.find(reference)
    machine = host.fingerprint()
    known = boards.recognise(machine)
    same = known is not None and known.name == board.name
    _warn(board, list(judge_board(board, machine, conditions.read(), read_power_mode(), recognised=same)))
    return spec if threads is not None else spec.model_copy(update={"threads": _threads(board, host.cores())})


def _threads(board: Board, cores: int) -> int:
    """As many as suit the board, and no more than there are cores: they would wait for each other."""
    from kdeploy import events

    wanted = board.threads.count
    if wanted <= cores:
        events.decided("threads", wanted, f"for {board.name}")
        return wanted
    events.decided("threads", cores, f"{wanted} suit {board.name}, but {cores} cores may be used here")
    return cores


def _warn(board: Board, findings: Sequence[Finding]) -> None:
    """A line for each finding that is not as it should be, and one for all that can't be read."""
    from kdeploy import events
    from kdeploy.machine.boards.judging import UNREAD

    notes = [one for one in findings if one.level != "ok" and one.what != "threads"]  # of those there is a decision
    for one in notes:
        if one.detail != UNREAD:
            events.warn(f"{board.name}: {one.what}: {one.detail}{f' {one.fix}' if one.fix else ''}")
    unread = [one.what for one in notes if one.detail == UNREAD]
    if unread:
        events.warn(f"{board.name}: this machine does not let us read what to check: {', '.join(unread)}.")
