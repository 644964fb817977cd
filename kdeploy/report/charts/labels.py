"""Where to put labels so that they cover neither points nor each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """A rectangle by its edges."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.bottom - self.top)


def place_labels(
    points: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], obstacles: Sequence[Box], frame: Box
) -> list[Box]:
    """One box a point, of the size asked (width, height), inside the frame where possible.

    Greedy, in the order given: each label takes the place around its point that covers the least of what is
    already there, the nearer the better.
    """
    taken = list(obstacles)
    placed = []
    for (x, y), (width, height) in zip(points, sizes, strict=True):
        best = min(_candidates(x, y, width, height), key=lambda pair: _cost(pair[0], pair[1], taken, frame))[0]
        placed.append(best)
        taken.append(best)
    return placed


def _candidates(x: float, y: float, width: float, height: float) -> Iterator[tuple[Box, float]]:
    """Boxes around a point, each with how far it is shifted away from the natural place at the right."""
    for side, left in enumerate((x + 11, x - 11 - width, x - width / 2)):
        for shift in (0, -1, 1, -2, 2, -3, 3, -4, 4):
            # Above or below the point a label must clear it; beside the point it may sit level with it.
            reach = shift * (height / 2 + (11 if side == 2 else 3))
            if side == 2 and shift == 0:
                continue
            top = y + reach - height / 2
            yield Box(left, top, left + width, top + height), abs(reach) + 6 * side


def _cost(box: Box, shift: float, taken: Sequence[Box], frame: Box) -> float:
    covered = sum(box.overlap(other) for other in taken)
    outside = box.area - box.overlap(frame)
    return 10 * covered + 40 * outside + shift
