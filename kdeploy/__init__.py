"""kdeploy: from a teacher's checkpoint to a measured engine on a small device.

Importing this package loads nothing heavy: every room (`kdeploy.methods`, `kdeploy.engines`, ...)
is imported when it is first touched, so that the device side never needs torch.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__version__ = "0.1.0"

_ROOMS = (
    "bench",
    "bundle",
    "engines",
    "export",
    "methods",
    "models",
    "parity",
    "quantize",
    "recipe",
    "report",
    "runtime",
    "sources",
)


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOMS])
