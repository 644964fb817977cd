"""What the report says first: each engine that ships against the network that it replaces."""

from __future__ import annotations

from dataclasses import dataclass

from kdeploy.report import figures
from kdeploy.report.data import ReportData
from kdeploy.report.rows import Row


@dataclass(frozen=True)
class Comparison:
    """One figure of both, as text, and as shares of a bar in [0, 1]."""

    title: str
    change: str
    ours: str
    theirs: str
    our_share: float
    their_share: float
    note: str = ""


@dataclass(frozen=True)
class Headline:
    """The two rows that are compared, and how."""

    ours: Row
    theirs: Row
    comparisons: tuple[Comparison, ...]


def headlines(report: ReportData) -> list[Headline]:
    """The shipped engines, each against the baseline; none where nothing ships or the baseline itself does."""
    rows = {row.key: row for row in report.rows}
    pairs = [(rows.get(key), rows.get(report.baselines.get(key, report.baseline))) for key in shipped_rows(report)]
    return [_headline(ours, theirs) for ours, theirs in pairs if ours and theirs and ours != theirs]


def shipped_rows(report: ReportData) -> list[str]:
    """Keys of the rows that bundles hold, the student's first."""
    return [*([] if report.shipped is None else [report.shipped]), *report.also_shipped]


def _headline(ours: Row, theirs: Row) -> Headline:
    found = [_latency(ours, theirs), _size(ours, theirs), _accuracy(ours, theirs)]
    return Headline(ours, theirs, tuple(comparison for comparison in found if comparison is not None))


def _latency(ours: Row, theirs: Row) -> Comparison | None:
    if ours.p50_ms is None or theirs.p50_ms is None:
        return None
    return Comparison(
        "latency, p50 of one image",
        _times(theirs.p50_ms / ours.p50_ms, "faster", "slower"),
        f"{figures.milliseconds(ours.p50_ms)} ms",
        f"{figures.milliseconds(theirs.p50_ms)} ms",
        *_shares(ours.p50_ms, theirs.p50_ms),
    )


def _size(ours: Row, theirs: Row) -> Comparison:
    return Comparison(
        "size on disk",
        _times(theirs.size_bytes / ours.size_bytes, "smaller", "larger"),
        figures.size(ours.size_bytes),
        figures.size(theirs.size_bytes),
        *_shares(ours.size_bytes, theirs.size_bytes),
    )


def _accuracy(ours: Row, theirs: Row) -> Comparison | None:
    if ours.accuracy is None or theirs.accuracy is None:
        return None
    points = 100 * (ours.accuracy - theirs.accuracy)
    return Comparison(
        f"accuracy on {ours.samples:,} images",
        f"{points:+.1f} points".replace("-", "−"),
        figures.percent(ours.accuracy),
        figures.percent(theirs.accuracy),
        ours.accuracy,
        theirs.accuracy,
        note=figures.interval(ours.accuracy_low, ours.accuracy_high),
    )


def _times(ratio: float, better: str, worse: str) -> str:
    """ "105× faster", or "1.30× slower" where it is not."""
    return f"{figures.ratio(ratio)} {better}" if ratio >= 1 else f"{figures.ratio(1 / ratio)} {worse}"


def _shares(ours: float, theirs: float) -> tuple[float, float]:
    most = max(ours, theirs)
    return ours / most, theirs / most
