"""DAFL: a generator and the student learn together, the teacher judging what is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from kdeploy.loading import Batch
from kdeploy.methods.base import Context, Outputs
from kdeploy.models.classifier import Classifier
from kdeploy.models.taps import Taps
from kdeploy.recipe.procedures.data_free import DaflOptions
from kdeploy.training.objective import Distillation, Objective, Step
from kdeploy.training.synthesis.generator import Generator
from kdeploy.training.synthesis.losses import activation, balance, one_hot
from kdeploy.training.views import View


class Said:
    """A `Teaching` that repeats what the teacher has just said, so that it runs once a batch."""

    def __init__(self) -> None:
        self._said: list[Outputs] = []

    def keep(self, outputs: Sequence[Outputs]) -> None:
        """What is repeated from now on, without its gradients."""
        self._said = [
            Outputs(
                logits=one.logits.detach(),
                features=[feature.detach() for feature in one.features],
                embedding=None if one.embedding is None else one.embedding.detach(),
            )
            for one in outputs
        ]

    def outputs(self, batch: Batch) -> list[Outputs]:
        """See `Teaching`."""
        return self._said


class Rival(Objective):
    """Chen, Wang, Xu, Yang, Liu, Shi, Xu, Xu, Tian: "Data-Free Learning of Student Networks", ICCV 2019,
    arXiv 1904.01186.

    The generator makes images of a batch of latents and minimises oh * OH + balance * BAL + activation * ACT
    (`losses.py`) of what the teacher says of them, OH with the class that it names itself; the student minimises the
    recipe's methods on the same images, without gradient to the generator (the paper's is the divergence at
    temperature 1). Both are stepped together by the loop's optimiser, Adam with one rate; the authors have Adam at 0.02
    for the generator and SGD at 0.1 for the student. Known to collapse for narrow students.

    told: the weights; view: how the methods see the teacher; said: the teaching of `distillation`; classifier: module
    path of the teacher's last linear layer.
    """

    def __init__(
        self,
        generator: Generator,
        teacher: Classifier,
        distillation: Distillation,
        told: DaflOptions,
        *,
        view: View,
        said: Said,
        classifier: str,
    ) -> None:
        super().__init__()
        self.generator = generator
        self.distillation = distillation
        self._teacher = (teacher,)  # in a tuple: no part of what is trained, moved or saved
        self._told = told
        self._view = view
        self._said = said
        self._classifier = classifier

    def forward(self, network: nn.Module, batch: Batch, context: Context) -> Step:
        images = self.generator(batch.images)
        terms = self._judged(images)
        step: Step = self.distillation(network, replace(batch, images=images.detach()), context)
        loss = torch.stack([step.loss, *terms.values()]).sum()
        return Step(loss, {**step.terms, **terms}, step.logits, step.labels)

    def _judged(self, images: Tensor) -> dict[str, Tensor]:
        """What the generator minimises, and the teacher's outputs kept for the student."""
        (teacher,) = self._teacher
        with self._view.opened() as view, Taps(teacher.network, [], classifier=self._classifier) as taps:
            logits = teacher(images)
            self._said.keep(view.outputs(logits))
            terms = {
                "oh": one_hot(logits, logits.argmax(dim=1)),
                "balance": balance(logits),
                "activation": activation(taps.embedding),
            }
        return {name: getattr(self._told, name) * value for name, value in terms.items()}
