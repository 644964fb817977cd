"""Cross-entropy for the labelled images of a batch, and something else for the others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdeploy.loading import Batch
from kdeploy.methods.base import Context, Outputs
from kdeploy.sources.labelling import HIDDEN
from kdeploy.training.gathering import Gathering, compared
from kdeploy.training.objective import Lesson, Objective, Step

Form = Literal["soft", "hard"]
"""The teacher's probabilities, or its likeliest class alone."""


def precise(values: Tensor) -> Tensor:
    """At least float32: probabilities in half precision are too coarse to take differences of."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def labelled_cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """(1/B) * sum of the cross-entropy of those rows of logits `[B, C]` whose label `[B]` is not HIDDEN."""
    total = F.cross_entropy(
        precise(logits), labels, ignore_index=HIDDEN, reduction="sum", label_smoothing=label_smoothing
    )
    return total / len(labels)


def teachers_labels(logits: Tensor, form: Form) -> Tensor:
    """What the teacher's logits `[B, C]` say of each image: probabilities `[B, C]`, without gradient."""
    probabilities = precise(logits.detach()).softmax(dim=1)
    if form == "soft":
        return probabilities
    return F.one_hot(probabilities.argmax(dim=1), probabilities.shape[1]).to(probabilities.dtype)


def margins(logits: Tensor) -> Tensor:
    """How sure a network is: the largest probability of each row of `[B, C]` less the second, `[B]` in [0, 1]."""
    first, second = precise(logits.detach()).softmax(dim=1).topk(2, dim=1).values.unbind(dim=1)
    return first - second


class FewLabels(Objective):
    """(1/B) * (cross_entropy * sum over labelled images of CE + sum over the others of a loss of the teacher's label).

    Both sums are divided by all images of a batch, B, so that an image weighs the same in whatever batch it comes. An
    image without a label has HIDDEN in the batch; the loss of those is `unlabelled`.

    lesson: the one teacher's, with the methods and their weights. gathering: as in `Distillation`.
    """

    def __init__(
        self,
        lesson: Lesson,
        cross_entropy: float,
        *,
        label_smoothing: float = 0.0,
        gathering: Gathering | None = None,
    ) -> None:
        super().__init__()
        self.methods = nn.ModuleList(method for method, _ in lesson.methods)
        self.lesson = lesson
        self.gathering = gathering
        self.cross_entropy = cross_entropy
        self.label_smoothing = label_smoothing

    def forward(self, network: nn.Module, batch: Batch, context: Context) -> Step:
        taught = self.lesson.teaching.outputs(batch)
        with self.lesson.view.opened() as view:
            logits = network(batch.images)
            seen = view.outputs(logits)
        own = labelled_cross_entropy(logits, batch.labels, self.label_smoothing)
        terms = {"cross_entropy": self.cross_entropy * own, **self.unlabelled(seen, taught, batch, context)}
        return Step(torch.stack(list(terms.values())).sum(), terms, logits)

    @abstractmethod
    def unlabelled(
        self, seen: Sequence[Outputs], taught: Sequence[Outputs], batch: Batch, context: Context
    ) -> dict[str, Tensor]:
        """The weighted terms of the images without a label; seen, taught: one `Outputs` for each method."""


class Plain(FewLabels):
    """The teacher's labels as they are: each method's term on the rows without a label, times their share of the batch.

    What a method compares, it compares within these rows; a batch with fewer than two of them says nothing to it.
    """

    def unlabelled(
        self, seen: Sequence[Outputs], taught: Sequence[Outputs], batch: Batch, context: Context
    ) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for number, (method, weight) in enumerate(self.lesson.methods):
            both = seen[number], taught[number]
            found, labels, its = compared(self.gathering, method.needs, both, batch, context)
            rows = (labels == HIDDEN).nonzero().flatten()
            if len(rows) < (1 if method.needs.whole_batch == "no" else 2):
                continue
            ours, theirs = (_rows(each, rows) for each in found)
            index = None if its.index is None else its.index[rows]
            share = len(rows) / len(labels)
            for name, value in method.terms(ours, theirs, None, replace(its, index=index)).items():
                terms[name if name not in terms else f"{number}/{name}"] = weight * share * value
        return terms


def _rows(outputs: Outputs, rows: Tensor) -> Outputs:
    return Outputs(
        logits=outputs.logits[rows],
        features=[feature[rows] for feature in outputs.features],
        embedding=None if outputs.embedding is None else outputs.embedding[rows],
    )
