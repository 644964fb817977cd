"""`kdeploy doctor`: what this machine can do, and the command that mends what it can't."""

from __future__ import annotations

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register

_MARKS = {"ok": ("✓", "green"), "note": ("·", "yellow"), "problem": ("✗", "red")}


def doctor(json_: options.JsonOption = None) -> None:
    """Say what this machine can do: processor, torch, engines, versions, and what is missing.

    Example: kdeploy doctor
    """
    from rich.text import Text

    from kdeploy.cli.output import emit, talking
    from kdeploy.machine.doctor import examine

    with talking():
        diagnosis = examine()
    text = Text()
    for finding in diagnosis.findings:
        mark, color = _MARKS[finding.level]
        text.append(f"{mark} ", style=color).append(finding.what, style="bold").append(f"  {finding.detail}\n")
        if finding.fix:
            text.append(f"  → {finding.fix}\n", style="cyan")
    count = len(diagnosis.problems)
    text.append(f"\n{count} problem{'s' if count != 1 else ''}" if count else "\nNothing stands in the way.")
    emit(json_, diagnosis.model_dump(mode="json"), text)


def register(app: typer.Typer) -> None:
    _register(app, doctor, "doctor")
