"""What int8 costs in each layer alone: a bar a layer, in the order in which they are computed."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from markupsafe import Markup

from kdeploy.report import figures
from kdeploy.report.charts.svg import Scale, add, figure, log_ticks, markup, text_width
from kdeploy.report.data import LayerCost

_TOP, _BOTTOM = 30.0, 44.0
_DECADES = 6
"""Bars further below the longest than so many powers of ten are cut off at the axis."""


def draw(
    ident: str,
    costs: Sequence[LayerCost],
    *,
    title: str,
    kept: Collection[str] = (),
    width: float = 1000,
    narrow: bool = False,
) -> Markup:
    """costs: at least one. kept: layers in grey, which stay in float32.

    The divergence is drawn on a logarithmic axis, since it differs by powers of ten between layers.
    """
    names = [f"{cost.layer} · {cost.operator}" for cost in costs]
    row = 36.0 if narrow else 20.0
    left = 18.0 if narrow else min(max(text_width(name, 12) for name in names) + 12, width / 2)
    height = _TOP + row * len(costs) + _BOTTOM
    said = "; ".join(f"{cost.layer} {figures.significant(cost.divergence)}" for cost in costs)
    root = figure(ident, width, height, title=title, description=f"Divergence in nats: {said}")
    add(root, "text", title, class_="name", x=4, y=16)
    x = _scale([cost.divergence for cost in costs], left, width - 120)
    base = _TOP + row * len(costs)
    for value in log_ticks(x.low, x.high, most=int((x.end - x.start) / 60)):
        add(root, "line", class_="faint", x1=x(value), x2=x(value), y1=_TOP, y2=base)
        add(root, "text", f"{value:g}", class_="tick", x=x(value), y=base + 16, text_anchor="middle")
    for place, (cost, name) in enumerate(zip(costs, names, strict=True)):
        at = _TOP + row * place + (16 if narrow else 0)
        end = x(max(cost.divergence, x.low))
        if narrow:
            add(root, "text", name, x=left, y=at)
        else:
            add(root, "text", name, x=left - 8, y=at + 14, text_anchor="end")
        bar = "kept" if cost.layer in kept else "bar"
        add(root, "rect", class_=bar, x=left, y=at + 3, width=max(end - left, 1), height=14)
        add(root, "text", _figures(cost), class_="detail", x=end + 6, y=at + 14)
    axis = "divergence, nats (log)" if narrow else "Kullback-Leibler divergence from float32, nats (log)"
    add(root, "text", axis, class_="label", x=left, y=height - 8)
    return markup(root)


def _scale(values: Sequence[float], start: float, end: float) -> Scale:
    most = max([*values, 1e-12])
    least = max(min([value for value in values if value > 0] or [most]), most * 10.0**-_DECADES)
    low = 10.0 ** math.floor(math.log10(least))
    return Scale(low, max(most, 10 * low), start, end, logarithmic=True)


def _figures(cost: LayerCost) -> str:
    if cost.accuracy_points is None:
        return f"{figures.percent(cost.same_class)} same class"
    return f"{cost.accuracy_points:+.2f} points".replace("-", "−")
