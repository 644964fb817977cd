"""What int8 costs in each layer alone: a bar a layer, in the order in which they are computed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from kdeploy.report import figures
from kdeploy.report.charts.svg import Scale, add, figure, log_ticks, text_width

_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #333 }
.tick, .detail { fill: #777 }
.grid { stroke: #e6e6e6 }
.bar { fill: #3565b5 }
.kept { fill: #b5b5b5 }
rect.page { fill: #fff }
"""
_ROW, _TOP, _BOTTOM, _WIDTH = 20.0, 34.0, 44.0, 900.0
_DECADES = 6
"""Bars further below the longest than so many powers of ten are cut off at the axis."""


def draw(costs: Sequence[Mapping[str, Any]], *, title: str, kept: Sequence[str] = ()) -> str:
    """An SVG that stands alone.

    costs: as `quantize.sensitivity.LayerCost.to_json` gives them. kept: layers in grey, which stay in float32. The
    divergence is drawn on a logarithmic axis, since it differs by powers of ten between layers.
    """
    names = [f"{cost['layer']} · {cost['operator']}" for cost in costs]
    left = min(max(text_width(name, 12) for name in names) + 12, _WIDTH / 2)
    height = _TOP + _ROW * len(costs) + _BOTTOM
    said = "; ".join(f"{cost['layer']} {figures.significant(cost['divergence'])}" for cost in costs)
    root = figure("sensitivity", _WIDTH, height, title=title, description=f"Divergence in nats: {said}")
    root.set("xmlns", "http://www.w3.org/2000/svg")
    add(root, "style", _STYLE)
    add(root, "rect", class_="page", x=0, y=0, width=_WIDTH, height=height)
    add(root, "text", title, x=8, y=20)
    x = _scale([cost["divergence"] for cost in costs], left, _WIDTH - 120)
    base = _TOP + _ROW * len(costs)
    for value in log_ticks(x.low, x.high, most=8):
        add(root, "line", class_="grid", x1=x(value), x2=x(value), y1=_TOP, y2=base)
        add(root, "text", f"{value:g}", class_="tick", x=x(value), y=base + 16, text_anchor="middle")
    for place, (cost, name) in enumerate(zip(costs, names, strict=True)):
        at = _TOP + _ROW * place
        end = x(max(cost["divergence"], x.low))
        bar = "kept" if cost["layer"] in kept else "bar"
        add(root, "text", name, x=left - 8, y=at + 14, text_anchor="end")
        add(root, "rect", class_=bar, x=left, y=at + 3, width=max(end - left, 1), height=_ROW - 6)
        add(root, "text", _figures(cost), class_="detail", x=end + 6, y=at + 14)
    axis = "Kullback-Leibler divergence from float32 with this layer alone in int8, nats (log)"
    add(root, "text", axis, class_="tick", x=left, y=height - 8)
    return ElementTree.tostring(root, encoding="unicode")


def _scale(values: Sequence[float], start: float, end: float) -> Scale:
    most = max([*values, 1e-12])
    least = max(min([value for value in values if value > 0] or [most]), most * 10.0**-_DECADES)
    low = 10.0 ** math.floor(math.log10(least))
    return Scale(low, max(most, 10 * low), start, end, logarithmic=True)


def _figures(cost: Mapping[str, Any]) -> str:
    if cost["accuracy_points"] is None:
        return f"{figures.percent(cost['same_class'])} same class"
    return f"{cost['accuracy_points']:+.2f} points"
