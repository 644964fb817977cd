"""After a failed parity: which node of the float32 file is the first to compute something else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdeploy import events
from kdeploy.parity.divergence import TOLERANCE, Divergence, first_divergence
from kdeploy.stages import export
from kdeploy.stages.base import Run
from kdeploy.stages.model import ModelRun, Original

if TYPE_CHECKING:
    from kdeploy.export.to_onnx import Translation

_AT_ONCE = 4
"""Images, since all tensors of the network are kept for them."""


def bisect(run: Run, role: str) -> Divergence | None:
    """Compare a float32 file with what it was made from, node by node, and leave what is found beside it.

    That is torch, or somebody else's ONNX file. The images of the parity record are gone through until one shows it.
    None where every node agrees on all of them.
    """
    if isinstance(run, ModelRun) and run.original is not None:
        return _with_original(run, role, run.original)
    return _with_torch(run, role)


def _with_torch(run: Run, role: str) -> Divergence | None:
    from kdeploy.export.to_onnx import translate
    from kdeploy.models.storage import load_network

    target = export.onnx_file(run.folder, role)
    classifier, _ = load_network(run.folder / "networks" / role)
    preprocessing = export.graph_preprocessing(run, role)
    with events.task(f"bisect {role}"):
        translation = translate(classifier, run.splits.shape, run.recipe.export)
        for images in _parts(export.parity_images(run)):
            found = _compare(target, translation, export.model_inputs(images, preprocessing))
            if found is not None:
                found.write(target)
                return found
    return None


def _with_original(run: ModelRun, role: str, original: Original) -> Divergence | None:
    """The two files name their tensors alike, ours with a prefix where one of theirs had one of our names."""
    from kdeploy.export.intermediate import nodes_of, values_of

    target = export.onnx_file(run.folder, role)
    with events.task(f"bisect {role}"):
        for images in _parts(export.parity_images(run), original.batch):
            expected = values_of(original.path, original.inputs(images))
            known = {prefix + name: value for prefix in ("", "theirs/") for name, value in expected.items()}
            found = first_divergence(nodes_of(target), known, values_of(target, images), tolerance=TOLERANCE)
            if found is not None:
                found.write(target)
                return found
    return None


def _compare(target: Path, translation: Translation, inputs: NDArray[Any]) -> Divergence | None:
    """In the file first, which is what is shipped; then in the trace that it was written from."""
    from kdeploy.export.bisecting import traced_values, tracing_divergence
    from kdeploy.export.intermediate import nodes_of, values_of

    traced = traced_values(translation, inputs)
    found = first_divergence(nodes_of(target), traced, values_of(target, inputs), tolerance=TOLERANCE)
    return found or tracing_divergence(translation, inputs, traced, tolerance=TOLERANCE)


def _parts(images: NDArray[np.uint8], batch: int | None = None) -> Iterator[NDArray[np.uint8]]:
    step = batch or _AT_ONCE
    whole = len(images) // step * step if batch else len(images)
    return (images[begin : begin + step] for begin in range(0, whole, step))
