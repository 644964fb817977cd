"""What was made of a model, measured on its images: how often each engine says the same class, and the right one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdeploy import engines, events
from kdeploy.bench.statistics import wilson
from kdeploy.engines.onnxruntime import OnnxRuntime
from kdeploy.stages import export
from kdeploy.stages.model import ModelRun, built


@dataclass(frozen=True)
class Row:
    """One engine in one precision.

    agreement: share of the `samples` images on which it names the class that the float32 ONNX file names. accuracy:
    share of right ones with its 95 % interval; None where the images have no labels that fit.
    """

    path: str
    engine: str
    precision: str
    scheme: str | None
    size_bytes: int
    images: str
    samples: int
    agreement: float
    accuracy: float | None
    low: float | None
    high: float | None

    def as_json(self) -> dict[str, Any]:
        """JSON-able, by name."""
        return asdict(self)


def measure(run: ModelRun) -> list[Row]:
    """Run every engine of the folder on the images that are measured on. What each says is kept nowhere."""
    folders = built(run)
    if not folders:
        return []
    measured = run.splits.validation if len(run.splits.validation) else run.splits.train
    with OnnxRuntime().open_file(export.onnx_file(run.folder, run.recipe.name), threads=1) as session:
        preprocessing = export.graph_preprocessing(run, run.recipe.name)
        expected = export.predicted(session.run, measured.images, preprocessing)
    rows = []
    with events.task("measure agreement", len(folders)) as bar:
        for folder in folders:
            rows.append(_row(run, folder, measured.images, measured.labels, expected))
            bar.advance()
    return rows


def _row(run: ModelRun, folder: Path, images: Any, labels: NDArray[np.int64], expected: NDArray[np.int64]) -> Row:
    manifest = engines.read_manifest(folder)
    with engines.open_engine(folder, threads=1) as session:
        said = export.predicted(session.run, images, manifest.preprocessing)
    right = int((said == labels).sum())
    accuracy = (right / len(said), *wilson(right, len(said))) if run.labelled else (None, None, None)
    return Row(
        path=str(folder),
        engine=manifest.engine,
        precision=manifest.precision,
        scheme=manifest.scheme,
        size_bytes=manifest.size_bytes,
        images=run.what,
        samples=len(said),
        agreement=float((said == expected).mean()),
        accuracy=accuracy[0],
        low=accuracy[1],
        high=accuracy[2],
    )
