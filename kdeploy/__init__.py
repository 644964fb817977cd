"""kdeploy: from a teacher's checkpoint to a measured engine on a small device.

Importing this package loads nothing heavy: every room (`kdeploy.methods`, `kdeploy.engines`, ...)
is imported when it is first touched, so that the device side never needs torch.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

__version__ = "0.1.0"

# kdeploy sends nothing to anybody, and neither may a runtime that it starts: since 1.29 ONNX Runtime uploads usage
# data on Linux unless this is set before it is first imported. Who wants it on sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

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
