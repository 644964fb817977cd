"""Top-1 accuracy, likelihood and calibration from the engine itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdeploy.bench.inputs import Layout
from kdeploy.bench.likelihood import Answers
from kdeploy.bench.results import Accuracy
from kdeploy.bench.statistics import wilson
from kdeploy.engines.base import images_at_once


def predict(
    run: Callable[[NDArray[Any]], NDArray[np.float32]],
    layout: Layout,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    report: Callable[[float], None],
) -> Answers:
    """What the engine says of each image, uint8 `[N, H, W, C]`, whose labels are `[N]`."""
    step = layout.batch or images_at_once(images.shape[1], images.shape[2])
    read = Answers.of_probabilities if layout.gives_probabilities else Answers.of_logits
    parts = []
    for begin in range(0, len(images), step):
        outputs = run(layout.prepare(images[begin : begin + step]))
        parts.append(read(outputs, labels[begin : begin + step]))
        report(min(1.0, (begin + step) / len(images)))
    return Answers.joined(parts)


def data_sha256(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    """What tells one set of images `[N, H, W, C]` with labels `[N]` from another."""
    digest = hashlib.sha256(f"{images.shape} {images.dtype} {labels.dtype}".encode())
    for part in (images, labels):
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def score(answers: Answers, classes: Sequence[str], split: str, data: str | None = None) -> Accuracy:
    """Compare with the labels. A class without samples is left out of `per_class`. data: its `data_sha256`."""
    right, labels = answers.right, answers.labels
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
        predictions=tuple(answers.predicted.tolist()),
        wrong=tuple(np.flatnonzero(~right).tolist()),
        negative_log_likelihood=answers.negative_log_likelihood,
        calibration_error=answers.calibration_error,
        data_sha256=data,
    )
