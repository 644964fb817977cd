"""What the students of an online ensemble minimise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdeploy.loading import Batch
from kdeploy.methods.base import Context, Method, Needs, Outputs, Shapes
from kdeploy.models.classifier import Classifier
from kdeploy.models.stages import Stemmed
from kdeploy.models.taps import Taps
from kdeploy.recipe.networks import STUDENT
from kdeploy.training.gathering import Gathering, compared
from kdeploy.training.objective import Objective, Step, label_loss
from kdeploy.training.views import View

FEATURES = Needs(features="all")
"""What the adapters look at: the output of every stage, as it is."""


class Adapters(nn.Module):
    """1x1 convolutions with bias, one a stage, from a student's channels to those of the first student."""

    def __init__(self, ours: Shapes, first: Shapes) -> None:
        super().__init__()
        pairs = zip(ours.features, first.features, strict=True)
        self.stages = nn.ModuleList(nn.Conv2d(inputs, outputs, 1) for (inputs, _, _), (outputs, _, _) in pairs)

    def forward(self, ours: Sequence[Tensor], first: Sequence[Tensor]) -> Tensor:
        """Sum over the stages of the mean of (F_1 - r(F_j))^2 over batch, channels and pixels; F_1 gets no gradient."""
        squares = [
            F.mse_loss(_whole(adapter(feature)), _whole(wanted.detach()))
            for adapter, feature, wanted in zip(self.stages, ours, first, strict=True)
        ]
        return torch.stack(squares).sum()


class OnlineEnsemble(Objective):
    """The loss of N students with logits z_1, ..., z_N, and features F_1, ..., F_N of each stage i:

        sum over j     of  cross_entropy * CE(z_j, y)
        sum over j > 1 of  feature_weight * sum over i of  mean (F_1i - r_ij(F_ji))^2
        sum over j     of  weight * method(z_j, z_E),   z_E the mean of z_1, ..., z_N

    without gradient to z_E and, from the squares, to F_1; r_ij are `Adapters`. The loop trains the first student, whose
    logits and accuracy are those of a step; the others are part of the objective, so that one optimiser steps all and
    one checkpoint holds all.

    The stem is the first student's: it is run once, and what it gives goes into the bodies of the others. They must
    have the same modules as their stem (`kdeploy.models.stages.share_stem`), so that each is a whole network.

    views: how the features of all students are seen, the first one's first; needed for a feature_weight above 0.
    stem_gradient: whether the others' losses reach the stem. gathering: as in `Distillation`.
    """

    def __init__(
        self,
        first: Classifier,
        others: Mapping[str, Classifier],
        methods: Sequence[tuple[Method, float]],
        cross_entropy: float,
        *,
        feature_weight: float = 0.0,
        adapters: Mapping[str, Adapters] | None = None,
        views: Sequence[View] = (),
        stem_gradient: bool = True,
        label_smoothing: float = 0.0,
        gathering: Gathering | None = None,
    ) -> None:
        super().__init__()
        self.others = nn.ModuleDict(others)
        self.methods = nn.ModuleList(method for method, _ in methods)
        self.adapters = nn.ModuleDict(adapters or {})
        self.cross_entropy = cross_entropy
        self.feature_weight = feature_weight
        self.stem_gradient = stem_gradient
        self.label_smoothing = label_smoothing
        self._roles = (STUDENT, *others)
        self._weighted = tuple(methods)
        self._views = tuple(views)
        self._stem = Taps(first.network, stemmed(first).stem_modules[-1:])
        self._bodies = [stemmed(other).body for other in others.values()]
        self._gathering = gathering

    def forward(self, network: nn.Module, batch: Batch, context: Context) -> Step:
        with ExitStack() as stack:
            stem = stack.enter_context(self._stem)
            views = [stack.enter_context(view.opened()) for view in self._views]
            first = network(batch.images)
            (shared,) = stem.features
            given = shared if self.stem_gradient else shared.detach()
            logits = [_whole(each) for each in (first, *(body(given) for body in self._bodies))]
            # there are no views where features weigh nothing
            features = [view.outputs(each)[0].features for view, each in zip(views, logits, strict=False)]
        terms = {**self._labels(logits, batch), **self._features(features), **self._ensemble(logits, batch, context)}
        return Step(torch.stack(list(terms.values())).sum(), terms, logits[0])

    def _labels(self, logits: Sequence[Tensor], batch: Batch) -> dict[str, Tensor]:
        if self.cross_entropy == 0:
            return {}
        return {
            f"cross_entropy/{role}": self.cross_entropy * label_loss(each, batch, self.label_smoothing)
            for role, each in zip(self._roles, logits, strict=True)
        }

    def _features(self, features: Sequence[Sequence[Tensor]]) -> dict[str, Tensor]:
        if self.feature_weight == 0:
            return {}
        first, *others = features
        return {
            f"features/{role}": self.feature_weight * adapters(ours, first)
            for (role, adapters), ours in zip(self.adapters.items(), others, strict=True)
        }

    def _ensemble(self, logits: Sequence[Tensor], batch: Batch, context: Context) -> dict[str, Tensor]:
        """Each method on each student, with the mean of all logits as its teacher's."""
        together = Outputs(torch.stack(list(logits)).mean(dim=0).detach())
        terms: dict[str, Tensor] = {}
        for number, (method, weight) in enumerate(self._weighted):
            for role, each in zip(self._roles, logits, strict=True):
                both = [Outputs(each), together]
                (ours, theirs), labels, its = compared(self._gathering, method.needs, both, batch, context)
                for name, value in method.terms(ours, theirs, labels, its).items():
                    key = f"{name}/{role}"
                    terms[key if key not in terms else f"{number}/{key}"] = weight * value
        return terms


def stemmed(classifier: Classifier) -> Stemmed:
    """The network of a student, which must have a stem; a TypeError where it has none."""
    if not isinstance(classifier.network, Stemmed):
        raise TypeError(f"{type(classifier.network).__name__} has no stem to share")
    return classifier.network


def _whole(values: Tensor) -> Tensor:
    """float16 and bfloat16 become float32, anything else stays as it is."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
