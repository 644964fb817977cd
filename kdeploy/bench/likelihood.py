"""How sure a classifier is, and whether it may be: the likelihood of the labels, and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Of the calibration error, as in the tables of the field."""
_LEAST = float(np.finfo(np.float32).tiny)
"""A probability that has rounded to 0 counts as this much, so that one image cannot make the mean infinite."""


@dataclass(frozen=True)
class Answers:
    """What a classifier said of N images, and what is right.

    predicted, labels: int64 `[N]`; confidence: float64 `[N]`, the probability of the predicted class; likelihood:
    float64 `[N]`, that of the label.
    """

    predicted: NDArray[np.int64]
    labels: NDArray[np.int64]
    confidence: NDArray[np.float64]
    likelihood: NDArray[np.float64]

    @classmethod
    def of_logits(cls, logits: NDArray[Any], labels: NDArray[np.int64]) -> Answers:
        """From logits `[N, classes]` and labels `[N]`."""
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        powers = np.exp(shifted)
        return cls.of_probabilities(powers / powers.sum(axis=1, keepdims=True), labels)

    @classmethod
    def of_probabilities(cls, probabilities: NDArray[Any], labels: NDArray[np.int64]) -> Answers:
        """From probabilities `[N, classes]` and labels `[N]`."""
        rows, predicted = np.arange(len(labels)), probabilities.argmax(axis=1)
        confidence, likelihood = (probabilities[rows, which].astype(np.float64) for which in (predicted, labels))
        return cls(predicted, labels, confidence, likelihood)

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Those of several lots of images, one behind the other."""
        fields = ("predicted", "labels", "confidence", "likelihood")
        return cls(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))

    @property
    def right(self) -> NDArray[np.bool_]:
        right: NDArray[np.bool_] = self.predicted == self.labels
        return right

    @property
    def negative_log_likelihood(self) -> float | None:
        """The mean of -log p(label), in nats; None where the answers are not numbers."""
        return _number(-np.log(np.maximum(self.likelihood, _LEAST)).mean())

    @property
    def calibration_error(self) -> float | None:
        """The expected calibration error: how far confidence is from accuracy, as a share.

        Sum over bins of |share that is right - mean confidence|, weighted by the bin's share of the images, with 15
        bins of equal width over the confidence, each with its upper end (Guo, Pleiss, Sun, Weinberger, "On Calibration
        of Modern Neural Networks", ICML 2017, equation 3). None where the answers are not numbers.
        """
        if not np.isfinite(self.confidence).all():
            return None
        bins = np.clip(np.ceil(self.confidence * BINS).astype(int) - 1, 0, BINS - 1)
        gaps = np.bincount(bins, weights=self.right - self.confidence, minlength=BINS)
        return _number(np.abs(gaps).sum() / len(self.labels))


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
