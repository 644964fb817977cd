"""Where the processor is emulated, what runs on it is right, and what a clock says of it is not."""

from __future__ import annotations

from kdeploy.errors import Unavailable
from kdeploy.machine import host


def require_real(what: str) -> None:
    """Raise Unavailable where the processor is emulated; `what` is measured by the clock: "--layers"."""
    by = host.emulated()
    if by is not None:
        raise Unavailable(
            f"{what} can't be measured here: the processor is emulated ({by}), and its times and memory mean nothing. "
            "Measure on the real device; accuracy and size are true here, too."
        )
