"""Training curves: one panel a figure, one line a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from markupsafe import Markup

from kdeploy.report import figures
from kdeploy.report.charts.svg import Element, Scale, add, figure, markup, path, ticks
from kdeploy.report.charts.tradeoff import family
from kdeploy.report.data import Epoch

Curves = Mapping[str, Sequence[Epoch]]
WIDTH, HEIGHT = 340.0, 236.0


def accuracy(ident: str, curves: Curves) -> Markup | None:
    """Validation accuracy an epoch; None where it was never measured."""
    return _panel(ident, curves, "validation accuracy", lambda epoch: epoch.validation_accuracy, figures.percent)


def loss(ident: str, curves: Curves) -> Markup | None:
    """Training loss an epoch."""
    return _panel(ident, curves, "training loss", lambda epoch: epoch.train_loss, figures.significant)


def rate(ident: str, curves: Curves) -> Markup | None:
    """Learning rate an epoch."""
    return _panel(ident, curves, "learning rate", lambda epoch: epoch.lr, figures.significant)


def dashes_of(roles: Iterable[str]) -> dict[str, str]:
    """The class that tells networks of one colour apart, with a space before it: none, ` dash-1`, ` dash-2`."""
    seen: dict[str, int] = {}
    found = {}
    for role in roles:
        place = seen.get(family(role), 0)
        seen[family(role)] = place + 1
        found[role] = f" dash-{place % 3}" if place % 3 else ""
    return found


def _panel(
    ident: str,
    curves: Curves,
    what: str,
    figure_of: Callable[[Epoch], float | None],
    write: Callable[[float], str],
) -> Markup | None:
    lines = {role: _finite(epochs, figure_of) for role, epochs in curves.items()}
    lines = {role: line for role, line in lines.items() if line}
    if not lines:
        return None
    x, y = _scales(list(lines.values()), most=1.0 if write is figures.percent else math.inf)
    last = {role: write(line[-1][1]) for role, line in lines.items()}
    description = "; ".join(f"{role} ends at {value} after epoch {lines[role][-1][0]}" for role, value in last.items())
    root = figure(ident, WIDTH, HEIGHT, title=what.capitalize(), description=description)
    _axes(root, x, y, what, percent=write is figures.percent)
    dashes = dashes_of(curves)
    for role, line in lines.items():
        points = [(x(epoch), y(value)) for epoch, value in line]
        group = add(root, "g")
        add(group, "title", f"{role}: {last[role]}")
        add(group, "path", class_=f"line role-{family(role)}{dashes[role]}", d=path(points))
        add(group, "circle", class_=f"end role-{family(role)}", cx=points[-1][0], cy=points[-1][1], r=3)
    return markup(root)


def _finite(epochs: Sequence[Epoch], figure_of: Callable[[Epoch], float | None]) -> list[tuple[int, float]]:
    found = [(epoch.epoch, figure_of(epoch)) for epoch in epochs]
    return [(epoch, value) for epoch, value in found if value is not None and math.isfinite(value)]


def _scales(lines: Sequence[Sequence[tuple[int, float]]], most: float) -> tuple[Scale, Scale]:
    epochs = [epoch for line in lines for epoch, _ in line]
    values = [value for line in lines for _, value in line]
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    first, last = min(epochs), max(epochs)
    x = Scale(first, last if last > first else first + 1, 44, WIDTH - 10)
    least = 0.0 if low >= 0 else -math.inf
    return x, Scale(max(low - room, least), min(high + room, most), HEIGHT - 30, 36)


def _axes(root: Element, x: Scale, y: Scale, what: str, *, percent: bool) -> None:
    scale = 100 if percent else 1
    for value in ticks(scale * y.low, scale * y.high, 5):
        at = y(value / scale)
        add(root, "line", class_="faint", x1=x.start, x2=x.end, y1=at, y2=at)
        text = f"{value:g} %" if percent else f"{value:g}"
        add(root, "text", text, class_="tick", x=x.start - 6, y=at + 4, text_anchor="end")
    for value in ticks(x.low, x.high, 5):
        if value == round(value):
            add(root, "text", f"{value:g}", class_="tick", x=x(value), y=y.start + 19, text_anchor="middle")
    add(root, "line", class_="axis", x1=x.start, x2=x.end, y1=y.start, y2=y.start)
    add(root, "text", what, class_="name", x=4, y=14)
    add(root, "text", "epoch", class_="label", x=x.end, y=14, text_anchor="end")
