"""Keeping an eye on the machine while calls are timed, outside of the clock."""

from __future__ import annotations

from collections.abc import Sequence

from kdeploy.bench.results import Watched
from kdeploy.machine import conditions
from kdeploy.machine.conditions import Conditions


class Watch:
    """The machine's conditions before and after, and the clock of these cores (None: of all) in between.

    Between calls only the clock is read: the rest takes milliseconds, and what was in the caches would be gone.
    """

    def __init__(self, cores: Sequence[int] | None) -> None:
        self._cores = cores
        self._before: Conditions | None = None
        self._slowest_mhz: list[float] = []

    def begin(self) -> None:
        """Right after the warm-up: an idle processor's clock says nothing of a busy one's."""
        self.look()
        self._before = conditions.read()

    def look(self) -> None:
        """About once a second."""
        found = conditions.frequencies_mhz(self._cores)
        if found:
            self._slowest_mhz.append(min(found.values()))

    def end(self) -> Watched:
        """Right after the last call."""
        after = conditions.read()
        self.look()
        if self._before is None:
            raise ValueError("a watch ends after it has begun")
        return Watched(before=self._before, after=after, frequency_mhz=tuple(self._slowest_mhz))
