"""What a training minimises: cross-entropy alone, or with distillation methods beside it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdeploy.loading import Batch
from kdeploy.loading.seeds import seeded
from kdeploy.methods.base import Context, Method, Outputs, Phase
from kdeploy.training.gathering import Gathering, compared
from kdeploy.training.optim import Apart
from kdeploy.training.rotations import asked, rotated, rows_for
from kdeploy.training.teaching import Teaching
from kdeploy.training.views import View


@dataclass(frozen=True)
class Step:
    """One evaluation of an objective: the scalar to minimise, its named parts, and the logits `[B, classes]`.

    labels: int64 `[B]`, what accuracy is counted against where the batch has none of its own; None: the batch's.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    logits: Tensor
    labels: Tensor | None = None


class Objective(nn.Module):
    """Network and batch in, loss out. Its parameters (a method's adapters) are trained with the network's."""

    @abstractmethod
    def forward(self, network: nn.Module, batch: Batch, context: Context) -> Step:
        """The loss of `network` on `batch`; called once a step."""

    def apart(self, network: nn.Module) -> Sequence[Apart]:
        """Which parameters of `network` are trained in another way than the recipe says of all; none for most."""
        return ()

    def begin_epoch(self, network: nn.Module, epoch: int) -> None:
        """Called before the first batch of an epoch, and not where a training goes on inside of one.

        What it changes must lie in buffers, which a checkpoint holds, and derive from `network`, `epoch` and them.
        """
        return


def label_loss(logits: Tensor, batch: Batch, label_smoothing: float) -> Tensor:
    """Mean cross-entropy of logits `[B, classes]` with the labels; of mixed images, with both in their shares."""
    own = F.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing)
    if batch.mixed is None:
        return own
    other = F.cross_entropy(logits, batch.labels[batch.mixed.partner], label_smoothing=label_smoothing)
    return batch.mixed.share * own + (1 - batch.mixed.share) * other


class CrossEntropy(Objective):
    """Mean cross-entropy with the labels."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, network: nn.Module, batch: Batch, context: Context) -> Step:
        logits = network(batch.images)
        loss = label_loss(logits, batch, self.label_smoothing)
        return Step(loss, {"cross_entropy": loss}, logits)


class Readout(CrossEntropy):
    """Cross-entropy for what is left to train of a network that is otherwise frozen.

    The network runs as in evaluation, so that batch norms keep their statistics, too.
    """

    def forward(self, network: nn.Module, batch: Batch, context: Context) -> Step:
        network.eval()
        return super().forward(network, batch, context)


@dataclass(frozen=True)
class Lesson:
    """What one teacher has to teach.

    teaching: what it says of a batch; it is no module, so that neither the optimiser nor a checkpoint can hold the
    teacher. methods: each with its weight. view: how they see the student. share: of this teacher in the teaching of
    all, which add up to 1. name: what its terms are called by, beside those of others.
    """

    teaching: Teaching
    methods: Sequence[tuple[Method, float]]
    view: View
    share: float = 1.0
    name: str = ""


Loss = Callable[[Sequence[Lesson], float], Objective]
"""From what the teachers have to teach, and the weight of cross-entropy, to what is minimised."""


class Distillation(Objective):
    """cross_entropy * CE + sum over teachers of share * sum of weight * method; no teacher is trained.

    draw: the seed by which one teacher is drawn for each batch, with its share as probability, in place of the sum.
    gathering: for methods that compare samples, where several processes have a part of each batch; None: they compare
    those of a part.
    named_by_teacher: the batches have no labels: in their place stand the classes that the first teacher names.

    Where a method asks for rotated views, both networks are run on four rows an image; cross-entropy, accuracy and the
    methods that ask for none are given the unturned rows.
    """

    def __init__(
        self,
        lessons: Sequence[Lesson],
        cross_entropy: float,
        *,
        draw: int | None = None,
        label_smoothing: float = 0.0,
        gathering: Gathering | None = None,
        named_by_teacher: bool = False,
    ) -> None:
        super().__init__()
        self.methods = nn.ModuleList(method for lesson in lessons for method, _ in lesson.methods)
        self.lessons = tuple(lessons)
        self._draw = draw
        self._rotations = asked([method.needs for lesson in lessons for method, _ in lesson.methods])
        self._gathering = gathering
        self._named_by_teacher = named_by_teacher
        self.cross_entropy = cross_entropy
        self.label_smoothing = label_smoothing

    def forward(self, network: nn.Module, batch: Batch, context: Context) -> Step:
        turned = replace(batch, images=rotated(batch.images, self._rotations))
        lessons = self._today(context)
        taught = [lesson.teaching.outputs(turned) for lesson, _ in lessons]
        if self._named_by_teacher:
            batch = replace(batch, labels=taught[0][0].logits[:: self._rotations].argmax(dim=1))
        with ExitStack() as stack:
            views = [stack.enter_context(lesson.view.opened()) for lesson, _ in lessons]
            logits = network(turned.images)
            seen = [view.outputs(logits) for view in views]
        logits = logits[:: self._rotations]
        terms = {}
        if self.cross_entropy > 0:
            loss = label_loss(logits, batch, self.label_smoothing)
            terms["cross_entropy"] = self.cross_entropy * loss
        for (lesson, share), ours, theirs in zip(lessons, seen, taught, strict=True):
            for name, value in self._terms(lesson, ours, theirs, batch, context).items():
                terms[lesson.name + name] = share * value
        labels = batch.labels if self._named_by_teacher else None
        return Step(torch.stack(list(terms.values())).sum(), terms, logits, labels)

    def _today(self, context: Context) -> list[tuple[Lesson, float]]:
        """The lessons of this batch, each with its share in the loss."""
        if self._draw is None:
            return [(lesson, lesson.share) for lesson in self.lessons]
        shares = torch.tensor([lesson.share for lesson in self.lessons])
        drawn = torch.multinomial(shares, 1, generator=seeded(self._draw, context.step)).item()
        return [(self.lessons[int(drawn)], 1.0)]

    def _terms(
        self, lesson: Lesson, seen: Sequence[Outputs], taught: Sequence[Outputs], batch: Batch, context: Context
    ) -> dict[str, Tensor]:
        """The weighted terms of one teacher's methods."""
        terms: dict[str, Tensor] = {}
        for number, (method, weight) in enumerate(lesson.methods):
            both = [rows_for(method.needs, of_one[number], self._rotations) for of_one in (seen, taught)]
            (ours, theirs), labels, its = compared(self._gathering, method.needs, both, batch, context)
            for name, value in method.terms(ours, theirs, labels, its).items():
                terms[name if name not in terms else f"{number}/{name}"] = weight * value
        return terms


class PhaseLoss(Objective):
    """The loss of a phase that a method declares: on the teacher's outputs, and the student's if it is trained too."""

    def __init__(self, teaching: Teaching, method: Method, phase: Phase, *, view: View) -> None:
        super().__init__()
        self.method = method
        self.phase = phase
        self._teaching = teaching
        self._view = view

    def forward(self, network: nn.Module, batch: Batch, context: Context) -> Step:
        rotations = self.method.needs.rotations
        turned = replace(batch, images=rotated(batch.images, rotations))
        (taught,) = self._teaching.outputs(turned)
        seen, logits = None, taught.logits
        if self.phase.student:
            with self._view.opened() as view:
                logits = network(turned.images)
                (seen,) = view.outputs(logits)
        loss = self.method.phase_loss(self.phase, taught, seen, batch.labels)
        return Step(loss, {self.phase.name: loss}, logits[::rotations])
