"""Where engines spend their time: a panel an engine, a bar a layer, all on one axis so that engines compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from kdeploy.bench.layers import Layer, LayerProfile, by_operator, longest_first
from kdeploy.report import figures
from kdeploy.report.charts.svg import Element, Scale, add, figure, text_width, ticks

_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #333 }
.tick, .detail { fill: #777 }
.name { font-weight: 640 }
.grid { stroke: #e6e6e6 }
.layer { fill: #3565b5 }
.rest { fill: #b5b5b5 }
.interval { stroke: #16305c; stroke-width: 1.5 }
rect.page { fill: #fff }
"""
_ROW, _HEAD, _GAP, _TOP, _BOTTOM, _WIDTH, _FIGURES = 20.0, 26.0, 12.0, 8.0, 44.0, 900.0, 100.0
MOST = 24
"""Layers of each engine with a bar of their own."""


@dataclass(frozen=True)
class _Bar:
    name: str
    time_us: float
    detail: str
    layer: Layer | None = None
    """None: what is left after the layers with bars of their own."""


def draw(profiles: Sequence[LayerProfile], *, most: int = MOST) -> str:
    """An SVG that stands alone.

    The longest `most` layers of each engine in the order in which they are computed; below them the others together,
    and what of the call, profiler on, is in no layer.
    """
    panels = [_bars(profile, most) for profile in profiles]
    every = [bar for panel in panels for bar in panel]
    left = min(max(text_width(bar.name, 12) for bar in every) + 16, _WIDTH / 2)
    height = _TOP + sum(_HEAD + _ROW * len(panel) + _GAP for panel in panels) + _BOTTOM
    said = "; ".join(_spoken(profile) for profile in profiles)
    root = figure("layers", _WIDTH, height, title="Time by layer", description=said)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    add(root, "style", _STYLE)
    add(root, "rect", class_="page", x=0, y=0, width=_WIDTH, height=height)
    x = Scale(0.0, max(bar.time_us for bar in every), left, _WIDTH - _FIGURES)
    _axis(root, x, _TOP + _HEAD, height - _BOTTOM)
    top = _TOP
    for profile, panel in zip(profiles, panels, strict=True):
        heading = f"{profile.name} · {profile.profiler} · batch {profile.batch}"
        add(root, "text", heading, class_="name", x=8, y=top + 17)
        for place, bar in enumerate(panel):
            _draw_bar(root, x, top + _HEAD + _ROW * place, bar)
        top += _HEAD + _ROW * len(panel) + _GAP
    return ElementTree.tostring(root, encoding="unicode")


def _bars(profile: LayerProfile, most: int) -> list[_Bar]:
    shown, others = longest_first(profile.layers, most)
    bars = [
        _Bar(f"{layer.name} · {layer.operator}", layer.median_us, figures.percent(layer.share), layer)
        for layer in profile.layers
        if layer in shown
    ]
    if others:
        share = sum(layer.share for layer in others)
        together = sum(layer.median_us for layer in others)
        bars.append(_Bar(f"{len(others)} others", together, figures.percent(share)))
    if profile.unaccounted_us is not None and profile.unaccounted_us > 0:
        bars.append(_Bar("in no layer", profile.unaccounted_us, "of the call"))
    return bars


def _axis(root: Element, x: Scale, top: float, bottom: float) -> None:
    for value in ticks(x.low, x.high, 8):
        add(root, "line", class_="grid", x1=x(value), x2=x(value), y1=top, y2=bottom)
        add(root, "text", f"{value:g}", class_="tick", x=x(value), y=bottom + 16, text_anchor="middle")
    label = "µs a call while the profiler was on: medians with their 99 % intervals"
    add(root, "text", label, class_="tick", x=x.start, y=bottom + 36)


def _draw_bar(root: Element, x: Scale, top: float, bar: _Bar) -> None:
    """An interval that runs off the axis, as where the machine was busy with something else, ends with it."""
    end = x(bar.time_us)
    kind = "rest" if bar.layer is None else "layer"
    add(root, "text", bar.name, x=x.start - 8, y=top + 14, text_anchor="end")
    add(root, "rect", class_=kind, x=x.start, y=top + 3, width=max(end - x.start, 1), height=_ROW - 6)
    if bar.layer is not None and bar.layer.low_us is not None and bar.layer.high_us is not None:
        end = x(min(bar.layer.high_us, x.high))
        middle = top + _ROW / 2
        add(root, "line", class_="interval", x1=x(bar.layer.low_us), x2=end, y1=middle, y2=middle)
    text = f"{figures.significant(bar.time_us)} · {bar.detail}"
    add(root, "text", text, class_="detail", x=end + 6, y=top + 14)


def _spoken(profile: LayerProfile) -> str:
    """For those who cannot see it: the shares of the operators."""
    operators = ", ".join(f"{one.operator} {figures.percent(one.share)}" for one in by_operator(profile.layers)[:5])
    return f"{profile.name}: {operators} of {figures.significant(profile.sum_us)} µs in {len(profile.layers)} layers"
