"""The clock on the wall."""

from __future__ import annotations

import time

_AWAKE_NS = 200_000
"""The kernel wakes a sleeper up to a tenth of a millisecond late; so much before the time we stay awake."""


class WallClock:
    """`time.perf_counter_ns`, which a sleep does not stop."""

    now = staticmethod(time.perf_counter_ns)

    def wait_until(self, at: int) -> int:
        """Sleep for most of the time, and look at the clock for the rest."""
        asleep = at - self.now() - _AWAKE_NS
        if asleep > 0:
            time.sleep(asleep / 1e9)
        while (now := self.now()) < at:
            pass
        return now
