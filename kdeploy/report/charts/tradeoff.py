"""Accuracy against what it costs: where each network and engine stands, and which of them nothing beats in both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from markupsafe import Markup

from kdeploy.report import figures
from kdeploy.report.charts.costs import Cost
from kdeploy.report.charts.labels import Box, place_labels
from kdeploy.report.charts.svg import Element, Point, Scale, add, figure, log_ticks, markup, path, text_width, ticks
from kdeploy.report.rows import Row

_RADIUS = 6.5


def draw(ident: str, rows: Sequence[Row], cost: Cost, *, width: float, height: float, narrow: bool) -> Markup | None:
    """A point a row at (cost, accuracy), with the accuracy's 95 % interval; None where no row has both.

    Rows on the Pareto front have a ring around their mark, and a dashed line joins them.
    """
    shown = [row for row in rows if row.accuracy is not None and cost.of(row) is not None]
    if not shown:
        return None
    front = pareto(shown, cost)
    unit = cost.unit_for([_cost(row, cost) for row in shown])
    x, y = _scales(shown, cost, unit.size, width, height, beside=50 if narrow else 150)
    said = "; ".join(
        f"{row.name}: {figures.percent(row.accuracy)} at {cost.text(_cost(row, cost))}"
        + (", on the Pareto front" if row in front else "")
        for row in shown
    )
    root = figure(ident, width, height, title=f"Accuracy against {cost.name}", description=said)
    _axes(root, x, y, f"{cost.label}, {unit.name} (log)", width, height)
    at = {row.key: (x(_cost(row, cost) / unit.size), y(_accuracy(row))) for row in shown}
    stairs = _stairs([at[row.key] for row in front])
    if len(stairs) > 1:
        add(root, "path", class_="front", d=path(stairs))
    for row in shown:
        _point(root, row, *at[row.key], y, cost.text(_cost(row, cost)))
    for row in front:
        add(root, "circle", class_="halo", cx=at[row.key][0], cy=at[row.key][1], r=_RADIUS + 5)
    _labels(root, shown, [_two_lines(row, narrow) for row in shown], [at[row.key] for row in shown], stairs, x, y)
    return markup(root)


def pareto(rows: Sequence[Row], cost: Cost) -> list[Row]:
    """The rows that no other row beats in accuracy and cost both, the cheapest first; rows without either are none."""
    front: list[Row] = []
    known = [row for row in rows if row.accuracy is not None and cost.of(row) is not None]
    for row in sorted(known, key=lambda row: (_cost(row, cost), -_accuracy(row))):
        if not front or _accuracy(row) > _accuracy(front[-1]):
            front.append(row)
    return front


def mark(parent: Element, row: Row, x: float, y: float) -> None:
    """The row's sign: its colour is the network, its shape how it runs."""
    kind, named = shape(row), f"mark role-{family(row.role)}"
    if kind == "PyTorch":
        add(parent, "circle", class_=f"{named} hollow", cx=x, cy=y, r=_RADIUS - 1)
    elif kind == "int8":
        reach = _RADIUS + 1.5
        corners = [(x, y - reach), (x + reach, y), (x, y + reach), (x - reach, y)]
        add(parent, "path", class_=named, d=path(corners, closed=True))
    elif kind == "float32":
        add(parent, "circle", class_=named, cx=x, cy=y, r=_RADIUS)
    else:
        side = 2 * _RADIUS - 2
        add(parent, "rect", class_=named, x=x - side / 2, y=y - side / 2, width=side, height=side)


def shape(row: Row) -> str:
    """What the shape of the row's sign says."""
    if row.engine == "pytorch":
        return "PyTorch"
    return row.precision if row.precision in ("int8", "float32") else "other precisions"


def family(role: str) -> str:
    """The colour of a role: assistant-1 and assistant-2 share one."""
    known = role.partition("-")[0]
    return known if known in ("teacher", "alone", "student") else "other"


def _cost(row: Row, cost: Cost) -> float:
    found = cost.of(row)
    assert found is not None
    return found


def _accuracy(row: Row) -> float:
    assert row.accuracy is not None
    return row.accuracy


def _scales(
    rows: Sequence[Row], cost: Cost, unit: float, width: float, height: float, beside: float
) -> tuple[Scale, Scale]:
    """Scales that leave so many pixels free beside the cheapest and the dearest point, for labels."""
    costs = [math.log(_cost(row, cost) / unit) for row in rows]
    start, end = 52.0, width - 12
    middle, half = (min(costs) + max(costs)) / 2, max((max(costs) - min(costs)) / 2, 0.7)
    half *= (end - start) / (end - start - 2 * beside)
    lows = [row.accuracy if row.accuracy_low is None else row.accuracy_low for row in rows]
    highs = [row.accuracy if row.accuracy_high is None else row.accuracy_high for row in rows]
    low = min(value for value in lows if value is not None)
    high = max(value for value in highs if value is not None)
    room = max(0.08 * (high - low), 0.004)
    x = Scale(math.exp(middle - half), math.exp(middle + half), start, end, logarithmic=True)
    y = Scale(max(low - room, 0.0), min(high + room, 1.0), height - 46, 30)
    return x, y


def _axes(root: Element, x: Scale, y: Scale, label: str, width: float, height: float) -> None:
    grid = add(root, "g", class_="grid")
    values = ticks(100 * y.low, 100 * y.high, 5)
    digits = 0 if all(value == round(value) for value in values) else 1
    for value in values:
        at = y(value / 100)
        add(grid, "line", x1=x.start, x2=x.end, y1=at, y2=at)
        add(root, "text", f"{value:.{digits}f} %", class_="tick", x=x.start - 8, y=at + 4, text_anchor="end")
    for value in log_ticks(x.low, x.high, most=int(width / 60)):
        at = x(value)
        add(grid, "line", class_="faint", x1=at, x2=at, y1=y.start, y2=y.end)
        add(root, "text", f"{value:g}", class_="tick", x=at, y=y.start + 19, text_anchor="middle")
    add(root, "line", class_="axis", x1=x.start, x2=x.end, y1=y.start, y2=y.start)
    add(root, "text", label, class_="label", x=x.end, y=height - 6, text_anchor="end")
    add(root, "text", "accuracy", class_="label", x=x.start - 44, y=14)
    add(root, "text", "↖ better", class_="hint", x=x.start + 60, y=14)


def _stairs(corners: Sequence[Point]) -> list[Point]:
    """A staircase through the corners: everything right of it and below it is beaten by a point on it."""
    stairs = [corners[0]]
    for (_, previous_y), (at_x, at_y) in pairwise(corners):
        stairs += [(at_x, previous_y), (at_x, at_y)]
    return stairs


def _point(root: Element, row: Row, at_x: float, at_y: float, y: Scale, cost: str) -> None:
    group = add(root, "g")
    interval = figures.interval(row.accuracy_low, row.accuracy_high)
    add(group, "title", f"{row.name}: {figures.percent(row.accuracy)} {interval}, {cost}")
    if row.accuracy_low is not None and row.accuracy_high is not None:
        whisker = f"whisker role-{family(row.role)}"
        add(group, "line", class_=whisker, x1=at_x, x2=at_x, y1=y(row.accuracy_low), y2=y(row.accuracy_high))
    mark(group, row, at_x, at_y)


def _two_lines(row: Row, narrow: bool) -> tuple[str, str]:
    """A label: the network, and how it runs; on a narrow screen without what its mark says already."""
    subject, _, how = row.name.partition(" · ")
    if narrow:
        how = "PyTorch" if row.engine == "pytorch" else how.removeprefix("ONNX Runtime ")
    return subject, how


def _labels(
    root: Element,
    rows: Sequence[Row],
    lines: Sequence[tuple[str, str]],
    points: Sequence[Point],
    stairs: Sequence[Point],
    x: Scale,
    y: Scale,
) -> None:
    """Two lines beside each point, clear of marks, intervals and the front."""
    sizes = [(max(text_width(first, 12.5), text_width(second, 11.5)) + 2, 29.0) for first, second in lines]
    marks = [Box(at_x - 12, at_y - 12, at_x + 12, at_y + 12) for at_x, at_y in points]
    whiskers = [
        Box(at_x - 1, y(row.accuracy_high or _accuracy(row)), at_x + 1, y(row.accuracy_low or _accuracy(row)))
        for row, (at_x, _) in zip(rows, points, strict=True)
    ]
    steps = [
        Box(min(a[0], b[0]) - 1, min(a[1], b[1]) - 1, max(a[0], b[0]) + 1, max(a[1], b[1]) + 1)
        for a, b in pairwise(stairs)
    ]
    frame = Box(x.start, y.end - 12, x.end + 10, y.start)
    boxes = place_labels(points, sizes, marks + whiskers + steps, frame)
    for row, (first, second), box, (at_x, at_y) in zip(rows, lines, boxes, points, strict=True):
        role = f"role-{family(row.role)}"
        near_x, near_y = min(max(at_x, box.left), box.right), min(max(at_y, box.top + 4), box.bottom - 4)
        if math.hypot(near_x - at_x, near_y - at_y) > 22:
            add(root, "line", class_=f"leader {role}", x1=at_x, y1=at_y, x2=near_x, y2=near_y)
        anchor, at = _anchor(box, at_x)
        add(root, "text", first, class_=f"name {role}", x=at, y=box.top + 12, text_anchor=anchor)
        add(root, "text", second, class_="detail", x=at, y=box.top + 26, text_anchor=anchor)


def _anchor(box: Box, at_x: float) -> tuple[str, float]:
    if box.left >= at_x:
        return "start", box.left
    if box.right <= at_x:
        return "end", box.right
    return "middle", (box.left + box.right) / 2
