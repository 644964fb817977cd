"""SVG elements, scales and ticks: what every chart here is drawn with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from markupsafe import Markup

Element = ElementTree.Element
Point = tuple[float, float]


def figure(ident: str, width: float, height: float, *, title: str, description: str) -> Element:
    """An `<svg>` that scales with its container and that a screen reader announces by title and description."""
    root = Element(
        "svg",
        {
            "viewBox": f"0 0 {_number(width)} {_number(height)}",
            "role": "img",
            "aria-labelledby": f"{ident}-title {ident}-desc",
        },
    )
    add(root, "title", title, id=f"{ident}-title")
    add(root, "desc", description, id=f"{ident}-desc")
    return root


def add(parent: Element, tag: str, text: str | None = None, **attributes: str | float | None) -> Element:
    """Append an element. `class_` becomes class, `stroke_width` stroke-width; attributes that are None are left out."""
    named = {
        name.rstrip("_").replace("_", "-"): value if isinstance(value, str) else _number(value)
        for name, value in attributes.items()
        if value is not None
    }
    child = ElementTree.SubElement(parent, tag, named)
    child.text = text
    return child


def path(points: Sequence[Point], *, closed: bool = False) -> str:
    """The `d` of a line through the points."""
    steps = " ".join(f"{'L' if place else 'M'}{_number(x)} {_number(y)}" for place, (x, y) in enumerate(points))
    return f"{steps} Z" if closed else steps


def markup(root: Element) -> Markup:
    """The SVG's text; ElementTree escapes what is in it."""
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def text_width(text: str, size: float) -> float:
    """About how wide a text is in a system font of this size."""
    return 0.58 * size * len(text)


@dataclass(frozen=True)
class Scale:
    """From data to pixels, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        if self.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round values between low and high: about so many, a step of 1, 2 or 5 times a power of ten."""
    step = _round_step((high - low) / about)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """1, 2 and 5 times powers of ten between low and high; powers of ten alone where these are more than `most`."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [digit * 10.0**decade for decade in decades for digit in digits]
        inside = [value for value in found if low <= value <= high]
        if len(inside) <= most:
            break
    return inside


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= step * 0.999999)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
