"""`kdeploy methods`: the distillation methods, or one of them."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register

if TYPE_CHECKING:
    from rich.console import RenderableType

    from kdeploy.methods import Needs


def _complete(incomplete: str) -> list[str]:
    from kdeploy.methods import names

    return [name for name in names() if name.startswith(incomplete)]


def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Explain this one; python:module:Class for your own.", autocompletion=_complete
        ),
    ] = None,
    json_: options.JsonOption = None,
) -> None:
    """List the distillation methods with paper, year, needs and options, or explain one with its formula.

    Example: kdeploy methods kd
    """
    from kdeploy import methods as room
    from kdeploy.cli.execution import require_torch
    from kdeploy.cli.output import emit

    if name is not None:
        room.check(name)
    require_torch("kdeploy methods")
    if name is not None:
        described = _describe(name)
        emit(json_, {"schema_version": 1, **described}, _explained(described))
        return
    found = [_describe(known) for known in room.names()]
    emit(json_, {"schema_version": 1, "methods": found}, _listed(found))


def register(app: typer.Typer) -> None:
    _register(app, methods, "methods")


def _describe(name: str) -> dict[str, Any]:
    from dataclasses import asdict

    from kdeploy import methods as room

    found = room.find(name)
    return {
        "name": name,
        "paper": found.paper,
        "year": found.year,
        "formula": found.formula,
        "needs": asdict(found.needs),
        "needs_text": needs_text(found.needs),
        "options": room.options(name),
        "text": inspect.getdoc(found) or "",
    }


def needs_text(needs: Needs) -> str:
    """What a method must be given, in words."""
    words = []
    if needs.features is not None:
        stages = "features of all stages" if needs.features == "all" else "features of the last stage"
        words.append(stages + _before_or_after(needs.student_relu, needs.teacher_relu))
    if needs.embedding:
        words.append("embeddings")
    if not words:
        words.append("logits")
    asked = {
        "labels": needs.labels,
        "labels of the whole training set": needs.training_labels,
        "sample indices": needs.index,
        "the teacher's classifier": needs.teacher_classifier,
        f"{needs.rotations} rotated views of each image": needs.rotations > 1,
    }
    return ", ".join([*words, *(word for word, wanted in asked.items() if wanted)])


def _before_or_after(student: str, teacher: str) -> str:
    """Which side of the last ReLU, where it matters."""
    if student == teacher:
        return "" if student == "as-is" else f" {student} the ReLU"
    sides = {"student's": student, "teacher's": teacher}
    said = [f"the {whose} {side} the ReLU" for whose, side in sides.items() if side != "as-is"]
    return f" ({', '.join(said)})"


def _listed(found: list[dict[str, Any]]) -> RenderableType:
    from kdeploy.cli.tables import entry, plain_table

    rows = [
        (one["name"], str(one["year"]), entry(one["paper"], f"needs {one['needs_text']}", _options(one["options"])))
        for one in found
    ]
    return plain_table(("method", "year", "paper, needs and options"), rows)


def _options(found: dict[str, Any]) -> str:
    """Defaults as a recipe would have them."""
    written = {name: value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}
    return ", ".join(f"{name}={value}" for name, value in written.items())


def _explained(found: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from kdeploy.cli.docstrings import reflow
    from kdeploy.cli.tables import facts

    lines = [
        ("method", f"{found['name']}, {found['year']}"),
        ("paper", found["paper"]),
        ("formula", found["formula"]),
        ("needs", found["needs_text"]),
        ("options", _options(found["options"]) or "none"),
    ]
    return Group(facts(lines), Text(""), reflow(found["text"]))
