"""What the members of one network minimise, each of which has a teacher of its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import torch
from torch import Tensor, nn

from kdeploy.loading import Batch
from kdeploy.methods.base import Context, Outputs
from kdeploy.models.batch_ensemble import BatchEnsemble, mean_prediction
from kdeploy.training.gathering import Gathering
from kdeploy.training.objective import Distillation, Lesson, Step, label_loss
from kdeploy.training.optim import Apart
from kdeploy.training.perturbation import Perturbation


class MemberDistillation(Distillation):
    """Mean over the members m of cross_entropy * CE(z_m(x)) + sum of weight * method(z_m(x'), t_m(x')).

    The network gives the logits of all members in training, `[M * B, classes]`, as a `BatchEnsemble` does. Member m
    learns from the teacher of lesson m alone, on the images x' that `perturb` makes of the batch's x; the labels are
    those of x. Where x' is x, the network runs once; otherwise twice, and its batch norms see both.

    Logits and accuracy of a step are those of the members' mean probability on x.

    Args:
        lessons: one a member, in their order, with methods of their own; each with the share 1 / M.
        perturb: None: the images stay as they are.
        rank_one_lr: the learning rate of the rank-one vectors as a multiple of the recipe's; they have no weight decay.
        gathering: as in `Distillation`.
    """

    def __init__(
        self,
        lessons: Sequence[Lesson],
        cross_entropy: float,
        perturb: Perturbation | None,
        *,
        rank_one_lr: float,
        label_smoothing: float = 0.0,
        gathering: Gathering | None = None,
    ) -> None:
        super().__init__(lessons, cross_entropy, label_smoothing=label_smoothing, gathering=gathering)
        self._perturb = perturb
        self._rank_one_lr = rank_one_lr

    def apart(self, network: nn.Module) -> Sequence[Apart]:
        ensembles = [module for module in network.modules() if isinstance(module, BatchEnsemble)]
        vectors = [each for ensemble in ensembles for each in ensemble.rank_one()]
        return (Apart(vectors, lr_factor=self._rank_one_lr, weight_decay=False),)

    def forward(self, network: nn.Module, batch: Batch, context: Context) -> Step:
        shown = batch if self._perturb is None else replace(batch, images=self._perturb(batch, context.step))
        taught = [lesson.teaching.outputs(shown) for lesson in self.lessons]
        on_labels = None if shown is batch else network(batch.images)
        with ExitStack() as stack:
            views = [stack.enter_context(lesson.view.opened()) for lesson in self.lessons]
            logits = network(shown.images)
            seen = [view.outputs(logits) for view in views]
        members = self._by_member(logits if on_labels is None else on_labels)
        terms = {}
        if self.cross_entropy > 0:
            losses = [label_loss(each, batch, self.label_smoothing) for each in members]
            terms["cross_entropy"] = self.cross_entropy * torch.stack(losses).mean()
        for member, lesson in enumerate(self.lessons):
            ours = [self._of(member, outputs) for outputs in seen[member]]
            for name, value in self._terms(lesson, ours, taught[member], batch, context).items():
                terms[name] = terms.get(name, 0) + lesson.share * value
        return Step(torch.stack(list(terms.values())).sum(), terms, mean_prediction(members.detach()))

    def _of(self, member: int, outputs: Outputs) -> Outputs:
        """The rows of one member, of what the network gave for all."""
        return Outputs(
            logits=self._by_member(outputs.logits)[member],
            features=[self._by_member(feature)[member] for feature in outputs.features],
            embedding=None if outputs.embedding is None else self._by_member(outputs.embedding)[member],
        )

    def _by_member(self, rows: Tensor) -> Tensor:
        """`[M * B, ...]` to `[M, B, ...]`."""
        return torch.unflatten(rows, 0, (len(self.lessons), -1))
