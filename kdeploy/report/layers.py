"""Where engines spend their time, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from kdeploy.bench.layers import Layer, LayerProfile, by_operator, longest_first
from kdeploy.report import figures

WIDEST = 15
"""Layers of each engine that have a row of their own."""
_WIDE = 100
_SLOWED = 1.25
"""From so many times as long a call on, it is said that the profiler itself is in the figures."""


class LayerTables:
    """A table of layers and one of operators, an engine after the other in both; below them, how to read them."""

    def __init__(self, profiles: Sequence[LayerProfile], most: int = WIDEST) -> None:
        """most: layers of each engine with a row of their own; the rest is summed up as others."""
        self.profiles = profiles
        self.most = most

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _layers(self.profiles, self.most, wide=options.max_width >= _WIDE)
        yield Text()
        yield _operators(self.profiles)
        for profile in self.profiles:
            yield Text(f"\n{profile.name}: {' '.join(sentences(profile))}", style="dim")


def sentences(profile: LayerProfile) -> Iterator[str]:
    """How the times were taken, what they leave out, and what the profiler cost."""
    threads = "1 thread" if profile.threads == 1 else f"{profile.threads} threads"
    over = f"median of {profile.calls} calls"
    if 1 < profile.grouped < profile.calls:
        over = f"median of {profile.calls // profile.grouped} means of {profile.grouped} calls each"
    yield f"{profile.profiler}, batch {profile.batch}, {threads}, {over} on seeded noise, in brackets 99 % intervals."
    yield _accounted(profile)
    if profile.slowdown is not None and profile.slowdown > _SLOWED:
        times = figures.significant(profile.slowdown)
        yield f"The profiler makes it {times} times as long: small layers look longer than they are."
    yield from profile.notes


def _accounted(profile: LayerProfile) -> str:
    plain, total = figures.significant(profile.plain.median_us), figures.significant(profile.sum_us)
    rest = profile.unaccounted_us
    if profile.profiled is None or rest is None:
        return f"The layers add up to {total} µs; without the profiler a call takes {plain} µs."
    call = profile.profiled.median_us
    apart = f"{figures.significant(abs(rest))} µs ({figures.percent(abs(rest) / call)})"
    where = (
        f"{apart} are in no layer, but in the runtime, copies and the profiler itself"
        if rest >= 0
        else f"that is {apart} less than they take one by one"
    )
    return (
        f"The layers add up to {total} µs of a call of {figures.significant(call)} µs; {where}. Without the profiler "
        f"the call takes {plain} µs."
    )


def _layers(profiles: Sequence[LayerProfile], most: int, *, wide: bool) -> Table:
    """Narrow, operator and type stand below the layer's name."""
    between = ("operator", "type") if wide else ()
    table = _table(("layer", *between, "µs", "share"), right=("µs", "share"))
    for profile in profiles:
        _begin(table, profile, *[""] * len(between))
        shown, others = longest_first(profile.layers, most)
        for layer in shown:
            kinds = (layer.operator, layer.precision or "-") if wide else ()
            table.add_row(_name(layer, wide=wide), *kinds, _time(layer), figures.percent(layer.share))
        if others:
            total, share = sum(layer.median_us for layer in others), sum(layer.share for layer in others)
            rest = Text(f"{len(others)} others", style="dim")
            table.add_row(rest, *[""] * len(between), figures.significant(total), figures.percent(share))
    return table


def _operators(profiles: Sequence[LayerProfile]) -> Table:
    titles = ("by operator", "layers", "µs", "share")
    table = _table(titles, right=titles[1:])
    for profile in profiles:
        _begin(table, profile, str(len(profile.layers)))
        for one in by_operator(profile.layers):
            shown = figures.significant(one.total_us), figures.percent(one.share)
            table.add_row(Text(one.operator), str(one.layers), *shown)
    return table


def _table(titles: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for title in titles:
        table.add_column(title, justify="right" if title in right else "left", overflow="fold")
    return table


def _begin(table: Table, profile: LayerProfile, *between: str) -> None:
    """An engine's own row, above its layers."""
    table.add_section()
    cells = (profile.name, *between, figures.significant(profile.sum_us), figures.percent(1.0))
    table.add_row(*(Text(cell, style="bold") for cell in cells))


def _name(layer: Layer, *, wide: bool) -> Text:
    """The layer, and below it the operators of the nodes that it computes as well."""
    cell = Text(layer.name)
    kinds = "" if wide else " ".join(filter(None, (layer.operator, layer.precision)))
    fused = ", ".join(node.rpartition("/")[2] for node in layer.fused)
    if details := ", ".join(filter(None, (kinds, fused and f"with {fused}"))):
        cell.append(f"\n{details}", style="dim")
    return cell


def _time(layer: Layer) -> Text:
    cell = Text(figures.significant(layer.median_us))
    if layer.low_us is not None and layer.high_us is not None:
        interval = f" [{figures.significant(layer.low_us)}, {figures.significant(layer.high_us)}]"
        cell.append(interval, style="dim")
    return cell
