"""From teacher to engine: a box a file with its hash, joined to what it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from markupsafe import Markup

from kdeploy.report.charts.svg import Element, add, figure, markup, text_width
from kdeploy.report.data import Made

_BOX, _BETWEEN, _GAP, _MARGIN = 54.0, 16.0, 40.0, 8.0
_LANE = 12.0
"""What an edge takes up in a column that it only passes through."""
_HASH = 12
"""Characters of a hash that are shown; the table has all of them."""
_LONGEST = 26
"""Characters of a line in a box."""


@dataclass(eq=False)
class _Place:
    """A file, or where an edge passes a column between two files."""

    column: int
    made: Made | None = None
    after: list[_Place] = field(default_factory=list)
    """What leads on from here, one column further."""
    leads: bool = False
    y: float = 0.0
    """The middle."""

    @property
    def height(self) -> float:
        return _LANE if self.made is None else _BOX + _BETWEEN


def draw(ident: str, files: Sequence[Made]) -> Markup | None:
    """Files as `lineage.lineage` gives them, each after what it was made from; None where there are none."""
    if not files:
        return None
    places = _columns(files)
    everything = [*places.values(), *_passages(places)]
    _rows(everything)
    named = {made.file: made.name for made in files}
    said = "; ".join(
        f"{made.name} ({made.sha256[:_HASH]}) from {' and '.join(named[file] for file in made.made_from) or 'outside'}"
        for made in files
    )
    lefts, widths = _widths(everything)
    width = lefts[-1] + widths[-1] + _MARGIN
    height = max(place.y + place.height / 2 for place in everything) + _MARGIN
    root = figure(ident, width, height, title="From teacher to engine, by hash", description=said)
    root.set("style", f"min-width:{0.8 * width:.0f}px")
    for place in sorted(everything, key=lambda place: place.leads):
        for onward in place.after:
            _edge(root, place, onward, lefts, widths)
    for place in places.values():
        _box(root, place, lefts[place.column], widths[place.column])
    return markup(root)


def _lines(made: Made) -> tuple[str, str]:
    """The network or the bundle, and in what form."""
    if made.stage is None:
        return made.name.rpartition(" of ")[2], "checkpoint"
    subject, _, how = made.name.partition(" · ")
    how = how or (made.file if made.stage == "bundle" else "weights")
    return _short(subject), _short(how)


def _short(line: str) -> str:
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _columns(files: Sequence[Made]) -> dict[str, _Place]:
    """How many steps from the start; engines share a column, bundles the next."""
    places: dict[str, _Place] = {}
    for made in files:
        before = [places[file].column for file in made.made_from]
        places[made.file] = _Place(max(before) + 1 if before else 0, made, leads=made.ships)
    stages = {file: place.made.stage or "" for file, place in places.items() if place.made is not None}
    engines = [place for file, place in places.items() if stages[file].startswith("engines/")]
    furthest = max((place.column for place in engines), default=0)
    for place in engines:
        place.column = furthest
    for file, place in places.items():
        if stages[file] == "bundle":
            place.column = furthest + 1
    return places


def _passages(places: dict[str, _Place]) -> list[_Place]:
    """Join each file with what it was made from, by way of the columns between the two, which are returned."""
    between = []
    for place in places.values():
        for file in place.made.made_from if place.made is not None else ():
            onward = place
            for column in range(place.column - 1, places[file].column, -1):
                onward = _Place(column, after=[onward], leads=place.leads)
                between.append(onward)
            places[file].after.append(onward)
    return between


def _rows(places: Sequence[_Place]) -> None:
    """Engines below one another; from there back, each place level with the middle of what leads on from it.

    Bundles stand level with their engines. None covers another.
    """
    bundles = [place for place in places if place.made is not None and place.made.stage == "bundle"]
    others = [place for place in places if place not in bundles]
    last = max(place.column for place in others)
    for column in range(last, -1, -1):
        here = [place for place in others if place.column == column]
        for number, place in enumerate(here):
            onward = place.after if column < last else []
            place.y = fmean(one.y for one in onward) if onward else number * (_BOX + _BETWEEN)
        _spread(here)
    for place in bundles:
        place.y = fmean(one.y for one in others if place in one.after)
    _spread(bundles)
    top = min(place.y - place.height / 2 for place in places)
    for place in places:
        place.y += _MARGIN - top


def _spread(column: Sequence[_Place]) -> None:
    """Push places of a column down that would cover one another."""
    free = float("-inf")
    for place in sorted(column, key=lambda place: place.y):
        place.y = max(place.y, free + place.height / 2)
        free = place.y + place.height / 2


def _widths(places: Sequence[_Place]) -> tuple[list[float], list[float]]:
    """The left edge and the width of each column, as wide as its longest line."""
    lefts, widths, at = [], [], _MARGIN
    for column in range(max(place.column for place in places) + 1):
        texts = [line for place in places if place.column == column and place.made for line in _lines(place.made)]
        lefts.append(at)
        widths.append(max([text_width(line, 11.5) for line in texts] + [_HASH * 7.0]) + 20)
        at += widths[-1] + _GAP
    return lefts, widths


def _edge(root: Element, start: _Place, end: _Place, lefts: Sequence[float], widths: Sequence[float]) -> None:
    """From the right of one place to the left of the next, and straight on through it where it is only passed."""
    x0, x1 = lefts[start.column] + widths[start.column], lefts[end.column]
    middle = (x0 + x1) / 2
    d = f"M{x0:.1f} {start.y:.1f} C{middle:.1f} {start.y:.1f} {middle:.1f} {end.y:.1f} {x1:.1f} {end.y:.1f}"
    through = f" H{x1 + widths[end.column]:.1f}" if end.made is None else ""
    add(root, "path", class_="made leads" if end.leads else "made", d=d + through)


def _box(root: Element, place: _Place, x: float, width: float) -> None:
    made, y = place.made, place.y - _BOX / 2
    assert made is not None
    group = add(root, "g")
    add(group, "title", f"{made.file}: SHA-256 {made.sha256}")
    add(group, "rect", class_="file leads" if made.ships else "file", x=x, y=y, width=width, height=_BOX, rx=7)
    subject, how = _lines(made)
    add(group, "text", subject, class_="value boxed", x=x + 9, y=y + 16)
    add(group, "text", how, class_="detail boxed", x=x + 9, y=y + 31)
    add(group, "text", made.sha256[:_HASH], class_="hash boxed", x=x + 9, y=y + 46)
