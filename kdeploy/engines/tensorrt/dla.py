"""Which layers went to a Jetson's DLA, from what the builder logs: the one place where both ways to build say it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_PLACED = re.compile(r"\[(Dla|Gpu)Layer\] (.+)$")
_RANGE = re.compile(r"ForeignNode\[(.+)\]")


def coverage(log: Iterable[str]) -> dict[str, Any]:
    """The parts that run on the DLA, the layers that fell back to the GPU, and the DLA's share of both.

    A part is a run of layers that the DLA was given as one (`{ForeignNode[first...last]}`).
    """
    placed = [found for line in log if (found := _PLACED.search(line))]
    dla = [_RANGE.sub(r"\1", found[2]).strip("{}") for found in placed if found[1] == "Dla"]
    gpu = [found[2] for found in placed if found[1] == "Gpu"]
    return {"dla_parts": dla, "gpu_layers": gpu, "dla_share": len(dla) / len(placed) if placed else 0.0}
