"""How steady each engine's latency is: the distribution of every call, relative to the median of its engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from kdeploy.bench.results import Latency, Measurement
from kdeploy.report import figures
from kdeploy.report.charts.svg import Element, Scale, add, figure, markup, path, text_width, ticks
from kdeploy.report.charts.tradeoff import family
from kdeploy.report.rows import batch_one, display_name

_BINS = 140
_LEAST, _MOST = 0.5, 3.0
"""The axis never goes further: one stall of a second would flatten everything else."""


@dataclass(frozen=True)
class Ridge:
    """The calls of one engine."""

    name: str
    role: str
    latency: Latency
    relative: NDArray[np.float64]
    """Every call over the median."""


def draw(ident: str, measurements: Sequence[Measurement], *, width: float, narrow: bool) -> Markup | None:
    """A ridge a measurement, of its calls at batch 1; None where there are none."""
    ridges = ridges_of(measurements)
    if not ridges:
        return None
    row_height, top = (88.0, 8.0) if narrow else (58.0, 8.0)
    height = top + row_height * len(ridges) + 46
    left, right = (4.0, width - 4) if narrow else (168.0, width - 182)
    low, high = _reach(ridges)
    x = Scale(low, high, left, right)
    root = figure(
        ident,
        width,
        height,
        title="How steady the latency is",
        description="; ".join(f"{ridge.name}: {_summary(ridge.latency)}" for ridge in ridges),
    )
    _axis(root, x, top, height - 46, height)
    for place, ridge in enumerate(ridges):
        base = top + row_height * (place + 1) - 6
        _ridge(root, ridge, x, base, row_height - (44 if narrow else 12))
        _label(root, ridge, base, left=left, right=right, narrow=narrow, row_height=row_height)
    return markup(root)


def ridges_of(measurements: Sequence[Measurement]) -> list[Ridge]:
    """Those with samples at batch 1."""
    return [
        Ridge(display_name(one), one.role, latency, np.asarray(latency.samples_ms) / np.median(latency.samples_ms))
        for one in measurements
        if (latency := batch_one(one)) is not None and latency.samples_ms
    ]


def bins_of(ridges: Sequence[Ridge]) -> NDArray[np.float64]:
    """The edges of the axis' bins, in times the median; none without ridges."""
    return np.linspace(*_reach(ridges), _BINS + 1) if ridges else np.empty(0)


def shares(relative: NDArray[np.float64], bins: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of calls in each bin; those outside the axis are in none."""
    counts, _ = np.histogram(relative, bins=bins)
    found: NDArray[np.float64] = counts / relative.size
    return found


def _label(
    root: Element, ridge: Ridge, base: float, *, left: float, right: float, narrow: bool, row_height: float
) -> None:
    """The name and the figures: beside the ridge, or above it on a narrow screen."""
    role = f"name role-{family(ridge.role)}"
    subject, _, how = ridge.name.partition(" · ")
    if narrow:
        add(root, "text", subject, class_=role, x=left, y=base - row_height + 22)
        add(root, "text", how, class_="detail", x=left + text_width(subject, 15), y=base - row_height + 22)
        add(root, "text", _summary(ridge.latency), class_="detail", x=left, y=base - row_height + 38)
        return
    p50, rest = _summary(ridge.latency).split(" · ", 1)
    add(root, "text", subject, class_=role, x=left - 20, y=base - 17, text_anchor="end")
    add(root, "text", how, class_="detail", x=left - 20, y=base - 2, text_anchor="end")
    add(root, "text", p50, class_="value", x=right + 20, y=base - 17)
    add(root, "text", rest, class_="detail", x=right + 20, y=base - 2)


def _summary(latency: Latency) -> str:
    p99 = f"p99 {figures.milliseconds(latency.p99.value_ms)} ms" if latency.p99 else "p99 n/a"
    return f"p50 {figures.milliseconds(latency.p50.value_ms)} ms · {p99} · {latency.count:,} calls"


def _reach(ridges: Sequence[Ridge]) -> tuple[float, float]:
    low = min(float(np.quantile(ridge.relative, 0.002)) for ridge in ridges)
    high = max(float(np.quantile(ridge.relative, 0.995)) for ridge in ridges)
    return max(min(low - 0.02, 0.9), _LEAST), min(max(high + 0.02, 1.2), _MOST)


def _axis(root: Element, x: Scale, top: float, bottom: float, height: float) -> None:
    for value in ticks(x.low, x.high, 5):
        at, middle = x(value), abs(value - 1) < 1e-9
        add(root, "line", class_="median" if middle else "faint", x1=at, x2=at, y1=top, y2=bottom)
        add(root, "text", f"{value:g}×", class_="tick", x=at, y=bottom + 19, text_anchor="middle")
    add(
        root,
        "text",
        "latency of a call over its engine's median",
        class_="label",
        x=x.end,
        y=height - 6,
        text_anchor="end",
    )


def _ridge(root: Element, ridge: Ridge, x: Scale, base: float, reach: float) -> None:
    density = _density(ridge.relative, x.low, x.high)
    step = (x.high - x.low) / _BINS
    tops = [(x(x.low + (place + 0.5) * step), base - reach * float(value)) for place, value in enumerate(density)]
    role = f"role-{family(ridge.role)}"
    group = add(root, "g")
    add(group, "title", f"{ridge.name}: {_summary(ridge.latency)}")
    add(group, "path", class_=f"area {role}", d=path([(x.start, base), *tops, (x.end, base)], closed=True))
    add(group, "path", class_=f"line {role}", d=path(tops))
    add(group, "line", class_="axis", x1=x.start, x2=x.end, y1=base, y2=base)
    p99 = ridge.latency.p99
    relative = p99.value_ms / ridge.latency.p50.value_ms if p99 else None
    if relative is not None and x.low < relative < x.high:
        add(group, "line", class_=f"tail {role}", x1=x(relative), x2=x(relative), y1=base - 11, y2=base + 3)
        add(group, "text", "p99", class_="tick", x=x(relative), y=base - 15, text_anchor="middle")


def _density(relative: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """A smoothed histogram, its highest bin 1. The square root is shown, so that tails can be seen."""
    counts, _ = np.histogram(relative, bins=_BINS, range=(low, high))
    kernel = np.exp(-0.5 * (np.arange(-4, 5) / 1.3) ** 2)
    smooth = np.sqrt(np.convolve(counts, kernel / kernel.sum(), mode="same"))
    result: NDArray[np.float64] = smooth / max(float(smooth.max()), 1e-12)
    return result
