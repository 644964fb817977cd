"""Student-label mixing: the student's prediction is mixed up as the teacher errs, before it is held to its label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from torch import Tensor, nn

from kdeploy.loading import Batch
from kdeploy.methods.base import Context, Outputs
from kdeploy.sources.labelling import HIDDEN
from kdeploy.training.gathering import Gathering
from kdeploy.training.objective import Lesson
from kdeploy.training.unlabelled.objective import FewLabels, Form, margins, precise, teachers_labels

Array = NDArray[np.float64]


def likeliest(probabilities: Tensor, count: Tensor) -> Tensor:
    """True for the `count` `[B]` largest entries of each row of `[B, C]`; of equal ones, the first."""
    ranks = probabilities.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return ranks < count[:, None]


def mixed_cross_entropy(
    logits: Tensor, labels: Tensor, alpha: Tensor, among: Tensor, *, normalized: bool = False
) -> Tensor:
    """-sum over classes of labels * log mix, `[B]`, where with f = softmax(logits) and k True entries in a row:

        mix = alpha * f + (1 - alpha) * (1 - f) * among,    the last term over k - 1 where normalized

    logits, labels: `[B, C]`, the student's and the teacher's probabilities; alpha: `[B]` in (0.5, 1]; among: bool
    `[B, C]`, the classes between which the teacher errs. With one such class alpha is 1, and the loss cross-entropy.
    Taken in logarithms, so that a class of probability 0 neither is clamped nor gives NaN.
    """
    count = among.sum(dim=1, keepdim=True)
    alpha = torch.where(count > 1, alpha[:, None], 1.0).to(logits.dtype)
    log_own = F.log_softmax(logits, dim=1)
    others = (-torch.expm1(log_own)).clamp_min(torch.finfo(logits.dtype).eps)
    log_others = torch.log1p(-alpha) + others.log()
    if normalized:
        log_others = log_others - (count - 1).clamp_min(1).to(logits.dtype).log()
    log_own = alpha.log() + log_own
    log_mix = torch.where(among, torch.logaddexp(log_own, log_others), log_own)
    return -(labels * log_mix).sum(dim=1)


def isotonic(at: Array, values: Array) -> Array:
    """The non-decreasing function of `at` `[V]` nearest `values` `[V]` in the mean square; equal places are one."""
    _, place, counts = np.unique(at, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=values) / counts
    fitted: Array = isotonic_regression(means, weights=counts.astype(np.float64)).x[place]
    return fitted


class Reliability(nn.Module):
    """How often the teacher is right where it is so sure: alpha(x), and k(x).

    From logits `[V, C]` and labels `[V]` of images that the teacher has not learnt from: isotonic regression of whether
    its label is right on its margin, and, for `top_k` auto, of whether the truth is among its likeliest j classes, for
    each j; straight lines between, and constant beyond. alpha = max(least, that), k the smallest j whose figure reaches
    `accuracy`; C where none does. (A fit of more hits is nowhere below one of fewer, so there is one such j.)
    """

    margins: Tensor
    hits: Tensor

    def __init__(
        self, logits: Tensor, labels: Tensor, *, least: float, top_k: int | None, accuracy: float = 0.9
    ) -> None:
        super().__init__()
        at, order = margins(logits).cpu().sort()
        classes = logits.shape[1]
        likely = logits.cpu()[order].argsort(dim=1, descending=True, stable=True)
        within = (likely == labels.cpu()[order][:, None]).cumsum(dim=1)[:, : classes if top_k is None else 1]
        fits = [isotonic(at.double().numpy(), each.double().numpy()) for each in within.T]
        self.register_buffer("margins", at)
        self.register_buffer("hits", torch.from_numpy(np.stack(fits)).to(at.dtype))
        self._classes = classes
        self._least = least
        self._top_k = top_k
        self._accuracy = accuracy

    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """alpha `[B]` and k `[B]` of the teacher's logits `[B, C]`."""
        found = self._between(margins(logits).to(self.margins.dtype))
        alpha = found[0].clamp(self._least, 1.0)
        if self._top_k is not None:
            return alpha, torch.full_like(found[0], min(self._top_k, self._classes), dtype=torch.int64)
        return alpha, ((found < self._accuracy).sum(dim=0) + 1).clamp_max(self._classes)

    def _between(self, at: Tensor) -> Tensor:
        """The fits `[J, B]` at margins `[B]`."""
        behind = torch.searchsorted(self.margins, at, right=True).clamp(1, len(self.margins) - 1)
        low, high = self.margins[behind - 1], self.margins[behind]
        part = ((at - low) / (high - low).clamp_min(torch.finfo(at.dtype).tiny)).clamp(0.0, 1.0)
        return torch.lerp(self.hits[:, behind - 1], self.hits[:, behind], part)


class Mixed(FewLabels):
    """weight * (1/B) * sum over images without a label of the mixed cross-entropy with the teacher's label.

    alpha and k come from the teacher's logits of the very view that the student sees, and neither has a gradient.
    """

    def __init__(
        self,
        lesson: Lesson,
        cross_entropy: float,
        *,
        form: Form,
        reliability: Reliability,
        normalized: bool = False,
        label_smoothing: float = 0.0,
        gathering: Gathering | None = None,
    ) -> None:
        super().__init__(lesson, cross_entropy, label_smoothing=label_smoothing, gathering=gathering)
        self.reliability = reliability
        self._form = form
        self._normalized = normalized

    def unlabelled(
        self, seen: Sequence[Outputs], taught: Sequence[Outputs], batch: Batch, context: Context
    ) -> dict[str, Tensor]:
        ((_, weight),) = self.lesson.methods
        said = taught[0].logits
        alpha, count = self.reliability(said)
        among = likeliest(teachers_labels(said, "soft"), count)
        losses = mixed_cross_entropy(
            precise(seen[0].logits), teachers_labels(said, self._form), alpha, among, normalized=self._normalized
        )
        return {"mixed": weight * (losses * (batch.labels == HIDDEN)).sum() / len(losses)}
