"""What a plan depends on besides the graph: TensorRT's version, the GPU, its driver. Kept beside it, compared later."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdeploy.engines.tensorrt import cuda

_DRIVER = (Path("/proc/driver/nvidia/version"), Path("/sys/module/nvidia/version"))
_LABELS = {
    "tensorrt": "TensorRT",
    "compute_capability": "compute capability",
    "gpu": "GPU",
    "driver": "driver",
}


def facts(version: str) -> dict[str, str | None]:
    """TensorRT's version (given), and compute capability, GPU and driver of the current CUDA device.

    Raises Unavailable where CUDA finds no device.
    """
    capability, name = cuda.device()
    return {"tensorrt": version, "compute_capability": capability, "gpu": name, "driver": driver()}


def driver() -> str | None:
    """The kernel driver's version ("540.4.0"), None where there is none."""
    for path in _DRIVER:
        if path.is_file() and (found := re.search(r"\b\d+\.\d+(\.\d+)?\b", path.read_text(encoding="utf-8"))):
            return found[0]
    return None


def differences(built: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Each fact that differs between two machines, in words; what one of them does not know is left out."""
    return [
        f"{label}: built with {built[key]}, here {here[key]}"
        for key, label in _LABELS.items()
        if built.get(key) and here.get(key) and built[key] != here[key]
    ]
