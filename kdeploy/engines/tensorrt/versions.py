"""What differs between versions of TensorRT, in one place.

Sources: the release notes and the support matrix of each version; `trtexec`'s own source (its options are in
`trtexec_options.json`, from the tags 8.5.3, 8.6.1, 10.3.0, 10.16 and 11.1 of NVIDIA/TensorRT).
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

from kdeploy.errors import UserError

Version = tuple[int, ...]
"""(10, 3, 0): compares as versions do."""

OLDEST: Version = (8, 5)
_OPSETS: tuple[tuple[Version, int], ...] = (((8, 5), 17), ((10,), 20), ((10, 15), 24))
"""From which version on a parser reads up to which opset."""


def parse(text: str) -> Version:
    """The version in "10.16.1.11" or "TensorRT version: 8.5.2", without a build number."""
    found = re.search(r"\d+(\.\d+)+", text)
    if found is None:
        raise ValueError(f"{text!r} holds no version")
    return tuple(int(part) for part in found[0].split(".")[:3])


def show(version: Version) -> str:
    return ".".join(str(part) for part in version)


def highest_opset(version: Version) -> int:
    """The highest opset that this version's ONNX parser reads. Raises UserError below 8.5."""
    if version < OLDEST:
        raise UserError(
            f"TensorRT {show(version)} is too old; kdeploy builds with {show(OLDEST)} (JetPack 5.1) or later."
        )
    return [opset for since, opset in _OPSETS if version >= since][-1]


def has_dla(version: Version) -> bool:
    """Whether this version can build for a Jetson's DLA at all: 10.8 to 11.4.0 cannot."""
    return version < (10, 8) or version >= (11, 4, 1)


def is_strongly_typed(version: Version, *, dla: bool) -> bool:
    """Whether the graph's own types are the only precision.

    From 11 on there is nothing else. In 10 it is asked for, except for a DLA, which there computes in what the
    builder's float16 and int8 flags allow. 8 has no such mode.
    """
    return version >= (11,) or (version >= (10,) and not dla)


@cache
def trtexec_options(version: Version) -> frozenset[str]:
    """The options of this version's `trtexec`, without the dashes: those of the nearest earlier version known."""
    table = json.loads(Path(__file__).with_name("trtexec_options.json").read_text(encoding="utf-8"))
    options: frozenset[str] = frozenset()
    for text, changes in table.items():
        if parse(text) <= version:
            options = (options | set(changes["added"])) - set(changes["removed"])
    if not options:
        highest_opset(version)  # says that the version is too old
    return options
