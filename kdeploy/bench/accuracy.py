"""Top-1 accuracy from the engine itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdeploy.bench.inputs import Layout
from kdeploy.bench.results import Accuracy
from kdeploy.bench.statistics import wilson

_BATCH = 250
_PIXELS = _BATCH * 32 * 32


def predict(
    run: Callable[[NDArray[Any]], NDArray[np.float32]],
    layout: Layout,
    images: NDArray[np.uint8],
    report: Callable[[float], None],
) -> NDArray[np.int64]:
    """The predicted class of each image, int64 `[N]`. images: uint8 `[N, H, W, C]`.

    Runs 250 images of 32 x 32 pixels at a time, or as many larger ones as have that many pixels: activations grow
    with both, and a small device has little memory.
    """
    pixels = images.shape[1] * images.shape[2]
    step = layout.batch or max(1, min(_BATCH, _PIXELS // pixels))
    found = np.empty(len(images), dtype=np.int64)
    for begin in range(0, len(images), step):
        outputs = run(layout.prepare(images[begin : begin + step]))
        found[begin : begin + step] = outputs.argmax(axis=1)
        report(min(1.0, (begin + step) / len(images)))
    return found


def score(predictions: NDArray[np.int64], labels: NDArray[np.int64], classes: Sequence[str], split: str) -> Accuracy:
    """Compare with the labels. A class without samples is left out of `per_class`."""
    right = predictions == labels
    low, high = wilson(int(right.sum()), len(labels))
    return Accuracy(
        split=split,
        samples=len(labels),
        correct=int(right.sum()),
        value=float(right.mean()),
        low=low,
        high=high,
        per_class={
            name: float(right[labels == index].mean()) for index, name in enumerate(classes) if (labels == index).any()
        },
        predictions=tuple(predictions.tolist()),
    )
