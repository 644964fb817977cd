"""Where the builder's timings are kept: they are good for one version on one kind of GPU."""

from __future__ import annotations

import re
from pathlib import Path

from kdeploy.caches import cache_folder


def file(version: str, gpu: str) -> Path:
    """The file of this version and GPU; its folder is there afterwards, the file perhaps not yet."""
    folder = cache_folder("tensorrt-timings") / re.sub(r"[^A-Za-z0-9.]+", "-", f"{version}-{gpu}").strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "timing.cache"
