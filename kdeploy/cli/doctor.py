"""`kdeploy doctor`: what this machine can do, and the command that mends what it can't."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register

if TYPE_CHECKING:
    from rich.console import RenderableType

    from kdeploy.machine.doctor import Diagnosis

_MARKS = {"ok": ("✓", "green"), "note": ("·", "yellow"), "problem": ("✗", "red")}


def doctor(
    context: typer.Context,
    board: options.BoardOption = None,
    target: options.TargetOption = "local",
    json_: options.JsonOption = None,
) -> None:
    """Say what this machine, or a device, can do: processor, torch, engines, versions, and what is missing.

    A board that we know is compared with its profile: what suits it, and what to put right before measuring.

    Example: kdeploy doctor --target ssh://pi@raspberrypi.local
    """
    from kdeploy import targets

    if (place := targets.parse(target)) is not None:
        _there(context, place, board, json_)
        return
    from kdeploy.cli.output import emit, talking
    from kdeploy.machine.doctor import examine

    with talking(brief=True):
        diagnosis = examine(board)
    emit(json_, diagnosis.model_dump(mode="json"), _listed(diagnosis))


def register(app: typer.Typer) -> None:
    _register(app, doctor, "doctor")


def _there(context: typer.Context, place: options.Target, board: str | None, json_: str | None) -> None:
    from kdeploy.cli.elsewhere import Luggage, carry_out, common, words_of

    luggage = Luggage()
    carry_out(place, words_of(context, common(luggage, board, json_)), luggage)


def _listed(diagnosis: Diagnosis) -> RenderableType:
    """A mark, what was looked at, and what was found, with the command that mends it below."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for finding in diagnosis.findings:
        detail = Text(finding.detail)
        if finding.fix:
            detail.append(f"\n→ {finding.fix}", style="cyan")
        if finding.source:
            detail.append(f"\n  {finding.source}", style="dim")
        mark, color = _MARKS[finding.level]
        table.add_row(Text(mark, style=color), Text(finding.what), detail)
    count = len(diagnosis.problems)
    verdict = f"{count} problem{'s' if count != 1 else ''}." if count else "Nothing stands in the way."
    return Group(table, Text(f"\n{verdict}"))
