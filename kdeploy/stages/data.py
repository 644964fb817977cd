"""Read the data once, so that a broken image stops the run here and not in the middle of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdeploy import artifacts, events, sources
from kdeploy.recipe.schema import DataSpec
from kdeploy.stages import interrupted
from kdeploy.stages.base import Run

FILE = "data.json"


class Data:
    """Writes `data.json`: the classes, the counts, the image size and the fingerprint of all three splits."""

    name = "data"

    def inputs(self, run: Run) -> Mapping[str, Any]:
        return {
            "data": run.recipe.data.deciding("augment", "normalize"),
            "files": _state(run.recipe.data),
        }

    def run(self, run: Run) -> Sequence[Path]:
        splits = run.splits
        found = sources.fingerprint(splits)
        interrupted.require_same_images(run.folder / "networks", found)
        height, width, channels = splits.shape
        counts = {name: len(getattr(splits, name)) for name in ("train", "validation", "test")}
        artifacts.write_json(
            run.folder / FILE,
            {
                "schema_version": 1,
                "source": run.recipe.data.source,
                "classes": list(splits.classes),
                "image": {"height": height, "width": width, "channels": channels},
                "counts": counts,
                "per_class": {
                    name: np.bincount(getattr(splits, name).labels, minlength=len(splits.classes)).tolist()
                    for name in counts
                },
                "fingerprint": found,
            },
        )
        learnt = f"{counts['train']} images to train on, {counts['validation']} for validation"
        if not splits.has_training_images:
            learnt = "no training images are opened"
        events.say(
            f"data: {learnt}, {counts['test']} for the final test; {len(splits.classes)} classes, "
            f"{height}x{width}x{channels}"
        )
        return [run.folder / FILE]


def fingerprint(run: Run) -> str:
    """The fingerprint of the data, from the record of this stage."""
    return str(artifacts.read_json(run.folder / FILE)["fingerprint"])


def _state(data: DataSpec) -> str:
    """Names, sizes and times of the files under `root`: cheap to read, and it changes when they do."""
    if data.root is None or not Path(data.root).exists():
        return ""
    root = Path(data.root)
    files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
    return artifacts.sha256_json([[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files])
