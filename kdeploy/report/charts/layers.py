"""Where the time goes: each engine's layers as shares of a bar, in the order in which they are computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from markupsafe import Markup

from kdeploy.bench.results import LayerTime, Measurement
from kdeploy.report import figures
from kdeploy.report.charts.svg import Element, Scale, add, figure, markup, text_width
from kdeploy.report.charts.tradeoff import family
from kdeploy.report.rows import display_name

_KINDS = 6
"""Operators with a colour of their own; the others share the seventh."""
_SEGMENTS = 400
"""In all bars together: more would be thinner than a pixel and only make the file larger."""
_NAME = 60
"""Characters of a layer's name that are shown."""


def draw(ident: str, measurements: Sequence[Measurement], *, width: float, narrow: bool) -> Markup | None:
    """A bar a measurement that has a profile; None where none has."""
    profiled = [one for one in measurements if one.layers]
    if not profiled:
        return None
    kinds, drawn = operators(profiled), shown(profiled)
    left, right = (4.0, width - 4) if narrow else (168.0, width - 150)
    row_height = 58.0 if narrow else 40.0
    said = "; ".join(f"{display_name(one)}: {_slowest(one.layers or ())}" for one in profiled)
    lines = _legend_lines(kinds, width)
    top = 12 + 20.0 * len(lines)
    height = top + row_height * len(profiled) + 34
    root = figure(ident, width, height, title="Time by layer", description=said)
    _legend(root, lines)
    x = Scale(0, 1, left, right)
    for place, one in enumerate(profiled):
        base = top + row_height * (place + 1)
        _label(root, one, base, left=left, right=right, narrow=narrow)
        _bar(root, drawn[one.name], len(one.layers or ()), kinds, x, base - 24)
    for percent in (0, 25, 50, 75, 100):
        anchor = {0: "start", 100: "end"}.get(percent, "middle")
        add(root, "text", f"{percent} %", class_="tick", x=x(percent / 100), y=height - 14, text_anchor=anchor)
    return markup(root)


def shown(measurements: Sequence[Measurement]) -> dict[str, tuple[LayerTime, ...]]:
    """By the measurement's name, the layers that have a part of its bar: those that take most time, in their order."""
    most = max(_SEGMENTS // max(len(measurements), 1), 12)
    found = {}
    for one in measurements:
        layers = one.layers or ()
        slowest = sorted(range(len(layers)), key=lambda place: -layers[place].share)[:most]
        found[one.name] = tuple(layers[place] for place in sorted(slowest))
    return found


def operators(measurements: Sequence[Measurement]) -> dict[str, int]:
    """The operators that take most time, by the number of their colour; all the others are "other"."""
    time: defaultdict[str, float] = defaultdict(float)
    for one in measurements:
        for layer in one.layers or ():
            time[layer.operator] += layer.share
    most = sorted(time, key=lambda name: -time[name])[:_KINDS]
    known = {name: place + 1 for place, name in enumerate(most)}
    return known if len(time) <= _KINDS else {**known, "other": _KINDS + 1}


def _slowest(layers: Sequence[LayerTime]) -> str:
    slowest = sorted(layers, key=lambda layer: -layer.share)[:3]
    return ", ".join(f"{layer.name[:_NAME]} {figures.percent(layer.share)}" for layer in slowest)


def _legend_lines(kinds: dict[str, int], width: float) -> list[list[tuple[str, int, float]]]:
    """Operators with their colour and place, on as many lines as the width asks for."""
    lines: list[list[tuple[str, int, float]]] = [[]]
    at = 4.0
    for name, kind in kinds.items():
        wide = 18 + text_width(name, 12) + 24
        if lines[-1] and at + wide > width:
            lines.append([])
            at = 4.0
        lines[-1].append((name, kind, at))
        at += wide
    return lines


def _legend(root: Element, lines: Sequence[Sequence[tuple[str, int, float]]]) -> None:
    for place, line in enumerate(lines):
        for name, kind, at in line:
            y = 4 + 20 * place
            add(root, "rect", class_=f"kind-{kind}", x=at, y=y, width=12, height=12, rx=2)
            add(root, "text", name, x=at + 18, y=y + 10)


def _label(root: Element, one: Measurement, base: float, *, left: float, right: float, narrow: bool) -> None:
    subject, _, how = display_name(one).partition(" · ")
    layers = one.layers or ()
    total = f"{figures.milliseconds(sum(layer.median_us for layer in layers) / 1000)} ms in {len(layers)} layers"
    role = f"name role-{family(one.role)}"
    if narrow:
        add(root, "text", subject, class_=role, x=left, y=base - 31)
        add(root, "text", f"{how} · {total}", class_="detail", x=left + text_width(subject, 15), y=base - 31)
        return
    add(root, "text", subject, class_=role, x=left - 20, y=base - 15, text_anchor="end")
    add(root, "text", how, class_="detail", x=left - 20, y=base - 1, text_anchor="end")
    time, _, count = total.partition(" in ")
    add(root, "text", time, class_="value", x=right + 20, y=base - 15)
    add(root, "text", count, class_="detail", x=right + 20, y=base - 1)


def _bar(root: Element, layers: Sequence[LayerTime], total: int, kinds: dict[str, int], x: Scale, top: float) -> None:
    """A part for each of these layers; what the others of the engine's `total` take together ends the bar."""
    at = 0.0
    for layer in layers:
        said = f"{layer.name[:_NAME]} · {layer.operator}: {figures.significant(layer.median_us)} µs"
        kind = kinds.get(layer.operator, _KINDS + 1)
        _segment(root, x, at, at + layer.share, top, kind, f"{said}, {figures.percent(layer.share)}")
        at += layer.share
    if len(layers) < total:
        rest = f"{total - len(layers)} further layers: {figures.percent(max(1 - at, 0.0))}"
        _segment(root, x, at, 1.0, top, _KINDS + 1, rest)


def _segment(root: Element, x: Scale, start: float, end: float, top: float, kind: int, said: str) -> None:
    left, right = x(start), x(max(min(end, 1.0), start))
    bar = add(root, "rect", class_=f"segment kind-{kind}", x=left, y=top, width=right - left, height=24)
    add(bar, "title", said)
