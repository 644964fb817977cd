"""Weighted distillation: each label of the teacher counts as much as makes up for where the teacher errs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch import Tensor, nn

from kdeploy import events
from kdeploy.loading import Batch
from kdeploy.methods.base import Context, Outputs
from kdeploy.sources.labelling import HIDDEN
from kdeploy.training.gathering import Gathering
from kdeploy.training.objective import Lesson
from kdeploy.training.unlabelled.objective import FewLabels, Form, margins, precise, teachers_labels

Array = NDArray[np.float64]

_LEAST_LOSS = 1e-3
"""A loss below this counts as this: of a right and sure student every wrong label is infinitely worse."""


def debiasing_weight(wrong: Array, distortion: Array) -> Array:
    """w = 1 / (1 + p * (distortion - 1)), in (0, 1].

    wrong: p, the probability that the teacher's label is wrong; distortion: how many times as large the loss is under
    that wrong label as under the true one. The teacher's loss is expected to be (1 - p) * true + p * distortion * true,
    so that w times it is expected to be the true one. A distortion below 1, of a student that believes the wrong label,
    gives no weight above 1.
    """
    return 1.0 / np.maximum(1.0 + wrong * (distortion - 1.0), 1.0)


def distortions(logits: Tensor, labels: Tensor, taught: Tensor) -> Tensor:
    """The loss of student logits `[V, C]` under the labels `taught` `[V]` over that under the true `labels` `[V]`."""
    losses = [F.cross_entropy(logits.double(), each, reduction="none") for each in (taught, labels)]
    return losses[0] / losses[1].clamp_min(_LEAST_LOSS)


def estimated_weights(points: Array, wrong: Array, distortion: Array, at: Array, neighbours: int) -> Array:
    """The weights `[N]` of images at the places `at` `[N, 2]`, from what is known at `points` `[V, 2]`.

    wrong: `[V]`, 1 where the teacher errs; distortion: `[V]`, read only there. Both are averaged over the nearest
    `neighbours` points, where each axis counts by the points' standard deviation: p over all of them, the distortion
    over those where the teacher errs, so that w is the inverse of the mean of what the loss is distorted by. (A mean
    with 1 where the teacher is right would count p twice.)
    """
    scale = np.maximum(points.std(axis=0), 1e-12)
    _, nearest = KDTree(points / scale).query(at / scale, k=[*range(1, neighbours + 1)])
    errors = wrong[nearest].sum(axis=1)
    distorted = np.where(wrong > 0, distortion, 0.0)[nearest].sum(axis=1)
    return debiasing_weight(errors / neighbours, np.where(errors > 0, distorted / np.maximum(errors, 1.0), 1.0))


def effective_share(weights: Array) -> float:
    """(sum of w)^2 / (N * sum of w^2): as what share of all images these `[N]` weigh, in (0, 1]."""
    return float(weights.sum() ** 2 / (len(weights) * np.square(weights).sum()))


@dataclass(frozen=True)
class Compared:
    """What a network says in evaluation mode, on the CPU.

    logits: `[V, C]` of the labelled images to estimate by; margins: `[N]` of the training images, in their order.
    """

    logits: Tensor
    margins: Tensor


class Sureness(nn.Module):
    """A network that says its margin `[B, 1]` in place of its logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = network.training  # so that whoever evaluates it leaves the network as it was

    def forward(self, images: Tensor) -> Tensor:
        return margins(self.network(images))[:, None]


@dataclass(frozen=True)
class Weighting:
    """When and how weights are estimated; neighbours: None for the root of the number of images."""

    warm_up_epochs: int
    refresh: bool
    neighbours: int | None


class Weighted(FewLabels):
    """weight * (1/B) * sum over images without a label of w(x) * CE(teacher's label, student).

    w is estimated from the images with `labels` `[V]`, which neither teacher nor student learns from, at the places
    (teacher's margin, student's margin). It is a buffer, `weights` `[N]`, estimated from the student as it is at the
    beginning of an epoch and constant within: no gradient passes through it. Its sum is not normalised, so that the
    expectation of the loss stays that under true labels.

    ask: what a network says of both kinds of images. known: `[N]` labels of the training images, HIDDEN for most.
    """

    weights: Tensor

    def __init__(
        self,
        lesson: Lesson,
        cross_entropy: float,
        *,
        form: Form,
        ask: Callable[[nn.Module], Compared],
        teacher: nn.Module,
        labels: Tensor,
        known: Tensor,
        weighting: Weighting,
        label_smoothing: float = 0.0,
        gathering: Gathering | None = None,
    ) -> None:
        super().__init__(lesson, cross_entropy, label_smoothing=label_smoothing, gathering=gathering)
        self.register_buffer("weights", torch.ones(len(known)))
        self._form = form
        self._ask = ask
        self._teacher = ask(teacher)
        self._labels = labels.cpu()
        self._hidden = (known == HIDDEN).cpu()
        self._weighting = weighting
        self._neighbours = weighting.neighbours or round(len(labels) ** 0.5)

    def begin_epoch(self, network: nn.Module, epoch: int) -> None:
        """Estimate the weights: behind the warm-up, and again at each epoch where they are refreshed."""
        since = epoch - self._weighting.warm_up_epochs
        if since < 0 or (since > 0 and not self._weighting.refresh):
            return
        found = self._estimated(self._ask(network))
        self.weights[self._hidden.to(self.weights.device)] = torch.from_numpy(found).to(self.weights)
        events.say(
            f"weights of epoch {epoch + 1}: mean {found.mean():.2f}, as much as {effective_share(found):.0%} of "
            f"{len(found):,} images"
        )

    def _estimated(self, student: Compared) -> Array:
        """The weights of the images without a label."""
        taught = self._teacher.logits.argmax(dim=1)
        both = (self._teacher, student)
        points = torch.stack([margins(each.logits) for each in both], dim=1)
        at = torch.stack([each.margins[self._hidden] for each in both], dim=1)
        return estimated_weights(
            points.double().numpy(),
            (taught != self._labels).double().numpy(),
            distortions(student.logits, self._labels, taught).numpy(),
            at.double().numpy(),
            self._neighbours,
        )

    def unlabelled(
        self, seen: Sequence[Outputs], taught: Sequence[Outputs], batch: Batch, context: Context
    ) -> dict[str, Tensor]:
        ((_, weight),) = self.lesson.methods
        labels = teachers_labels(taught[0].logits, self._form)
        losses = -(labels * F.log_softmax(precise(seen[0].logits), dim=1)).sum(dim=1)
        counted = self.weights[batch.index] * (batch.labels == HIDDEN)
        return {"weighted": weight * (counted * losses).sum() / len(losses)}
