"""What networks minimise that teach one another."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

import torch
from torch import nn

from kdeploy.loading import Batch
from kdeploy.methods.base import Context, Method
from kdeploy.models.classifier import Classifier
from kdeploy.training.gathering import Gathering, compared
from kdeploy.training.objective import Objective, Step, label_loss
from kdeploy.training.rotations import asked, rotated, rows_for
from kdeploy.training.views import View


class MutualLearning(Objective):
    """Sum over the peers of cross_entropy * CE, and the sum of weight * method over all of them.

    The network that the loop trains is the first peer, and logits and accuracy are its. The others are part of the
    objective, so that they are trained by the same optimiser and kept in the same checkpoint.
    view, views: how the methods see the first peer, and the others by role. gathering: as in `Distillation`.
    """

    def __init__(
        self,
        peers: Mapping[str, Classifier],
        methods: list[tuple[Method, float]],
        cross_entropy: float,
        *,
        view: View,
        views: Mapping[str, View],
        label_smoothing: float = 0.0,
        gathering: Gathering | None = None,
    ) -> None:
        super().__init__()
        self.peers = nn.ModuleDict(peers)
        self.methods = nn.ModuleList(method for method, _ in methods)
        self._weighted = tuple(methods)
        self._views = (view, *(views[role] for role in peers))
        self._rotations = asked([method.needs for method, _ in methods])
        self._gathering = gathering
        self.cross_entropy = cross_entropy
        self.label_smoothing = label_smoothing

    def forward(self, network: nn.Module, batch: Batch, context: Context) -> Step:
        images = rotated(batch.images, self._rotations)
        with ExitStack() as stack:
            views = [stack.enter_context(view.opened()) for view in self._views]
            said = [peer(images) for peer in (network, *self.peers.values())]
            seen = [view.outputs(logits) for view, logits in zip(views, said, strict=True)]
        logits = [each[:: self._rotations] for each in said]
        terms = {}
        if self.cross_entropy > 0:
            for role, each in zip(("student", *self.peers), logits, strict=True):
                loss = label_loss(each, batch, self.label_smoothing)
                terms[f"cross_entropy/{role}"] = self.cross_entropy * loss
        for number, (method, weight) in enumerate(self._weighted):
            outputs = [rows_for(method.needs, of_peer[number], self._rotations) for of_peer in seen]
            given, labels, its = compared(self._gathering, method.needs, outputs, batch, context)
            for name, value in method.peer_terms(given, labels, its).items():
                terms[name if name not in terms else f"{number}/{name}"] = weight * value
        return Step(torch.stack(list(terms.values())).sum(), terms, logits[0])
