"""A docstring for a terminal: prose wrapped to its width, formulas left as they are."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.text import Text

from kdeploy.cli.tables import facts

_READABLE = 100
"""Columns: longer lines of prose are hard to read."""


def reflow(text: str) -> RenderableType:
    """Show the text of `inspect.getdoc`.

    Paragraphs without indentation are prose; those that hold an indented line are formulas; below the heading
    Options a line `name: what it is` begins an option, indented ones continue it, and any other ends the list.
    """
    shown: list[RenderableType] = []
    options = False
    for paragraph in text.split("\n\n"):
        lines = paragraph.splitlines()
        if len(lines) > 1 and set(lines[1]) == {"-"}:
            options = lines[0] == "Options"
            shown.append(Text(lines[0], style="bold"))
            lines = lines[2:]
        if options:
            items, lines = _items(lines)
            shown.append(facts(items))
            shown += [Text(f"\n{' '.join(lines)}")] if lines else []
        elif any(line.startswith(" ") for line in lines):
            shown.append(Text("\n".join(lines)))
        else:
            shown.append(Text(" ".join(lines)))
        shown.append(Text(""))
    return Constrain(Group(*shown[:-1]), _READABLE)


def _items(lines: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Options with their texts, and the lines behind them."""
    items: list[tuple[str, str]] = []
    for number, line in enumerate(lines):
        name, colon, begin = line.partition(": ")
        if line.startswith(" ") and items:
            items[-1] = (items[-1][0], f"{items[-1][1]} {line.strip()}")
        elif colon and name.isidentifier():
            items.append((name, begin))
        else:
            return items, lines[number:]
    return items, []
