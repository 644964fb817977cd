"""What a distillation method is: tensors in, loss out. No loop, no file, no device, no optimiser."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Outputs:
    """What one network gave for a batch.

    logits: `[B, C]`; features: one `[B, C_i, H_i, W_i]` for each tapped stage, shallow to deep;
    embedding: `[B, D]`, the pooled features before the classifier.
    """

    logits: Tensor
    features: Sequence[Tensor] = ()
    embedding: Tensor | None = None


@dataclass(frozen=True)
class Context:
    """What some methods want to know beside the tensors.

    index: `[B]` the samples' indices in the training set; epoch and step count from 0.
    """

    index: Tensor | None = None
    epoch: int = 0
    step: int = 0
    epochs: int = 1


@dataclass(frozen=True)
class Shapes:
    """The shapes of a network's outputs without the batch: what adapters are built from.

    onward: for each feature, what makes new layers of the network's own kind from it to a map like its last, for heads
    that branch off there (`kdeploy.models.stages`); empty where it offers none.
    """

    classes: int
    features: Sequence[tuple[int, int, int]] = ()
    embedding: int | None = None
    onward: Sequence[Callable[[], nn.Module]] = field(default=(), repr=False, compare=False)


Relu = Literal["as-is", "before", "after"]


@dataclass(frozen=True)
class Needs:
    """What a method must be given; the loop taps and prepares just that.

    features: of "all" stages, or of the "last" one only, which is then `features[-1]` either way.
    student_relu, teacher_relu: which tensor of a stage: "as-is", the module's output; "before" its last ReLU, or
    behind the batch norm that follows it; "after" that ReLU, or the ReLU that follows (`kdeploy.models.taps`).
    training_labels: `prepare` is called with the labels of the whole training set.
    teacher_classifier: `deployed` is called with the teacher's last linear layer.
    rotations: 4: both networks see each image four times, turned counter-clockwise by 0, 90, 180 and 270 degrees, and
    `Outputs` have 4B rows, image b by j quarters in row 4b + j. Labels and `Context.index` keep their B entries.
    whole_batch: what is given to the method where several processes have a part of a batch each. "no": the part; its
    loss is a mean over samples that do not meet, and those of the parts have the same mean. "better": the whole batch,
    unless the recipe says otherwise, because samples are compared with one another. "must": because it keeps a memory
    of samples, too, which has to be the same in all processes.
    """

    features: Literal["all", "last"] | None = None
    student_relu: Relu = "as-is"
    teacher_relu: Relu = "as-is"
    embedding: bool = False
    labels: bool = False
    index: bool = False
    training_labels: bool = False
    teacher_classifier: bool = False
    rotations: Literal[1, 4] = 1
    whole_batch: Literal["no", "better", "must"] = "no"

    @property
    def wants_embedding(self) -> bool:
        """Whether `Outputs.embedding` is filled: where it is asked for, and beside features, where it costs nothing."""
        return self.embedding or self.features is not None


@dataclass(frozen=True)
class Phase:
    """A training that comes before the student's own, such as a paraphraser's (Factor Transfer).

    student: whether the student is trained in it too, beside the method (FitNets' hints), and not only the method.
    milestones: the learning rate is multiplied by 0.1 after each of these epochs; none: it follows the recipe's
    schedule.
    """

    name: str
    epochs: int
    lr: float = 0.1
    student: bool = False
    milestones: tuple[int, ...] = ()


class Method(nn.Module):
    """A distillation method.

    A subclass is one file with: a docstring a reader could re-implement from, `paper`, `year`, `formula`,
    keyword-only options in `__init__` that become its recipe options, and `terms`.
    """

    paper: ClassVar[str]
    year: ClassVar[int]
    formula: ClassVar[str]
    needs: ClassVar[Needs] = Needs()

    @property
    def default_weight(self) -> float:
        """The weight of this term where the recipe sets none: the one behind the published figures."""
        return 1.0

    @property
    def default_cross_entropy(self) -> float:
        """The weight of cross-entropy where the recipe sets none."""
        return 1.0

    def phases(self) -> Sequence[Phase]:
        """Trainings that come first; none for most methods."""
        return ()

    def phase_loss(
        self, phase: Phase, teacher: Outputs, student: Outputs | None = None, target: Tensor | None = None
    ) -> Tensor:
        """The loss of a phase from `phases`: on the teacher's outputs, and the student's if `phase.student`.

        target: `[B]` int64 labels.
        """
        raise ValueError(f"{type(self).__name__} declares no phase {phase.name!r}")

    def end_phase(self, phase: Phase) -> None:
        """Called when a phase is over, so that what it trained can be frozen."""
        return

    def build(self, student: Shapes, teacher: Shapes) -> None:
        """Make the adapters for these shapes; a method without adapters has nothing to do."""
        return

    def prepare(self, labels: Tensor) -> None:
        """Called once, before or after `build`, with the training set's labels `[N]`, by `Context.index`."""
        return

    def deployed(self, network: nn.Module, tap: str, classifier: nn.Module | None = None) -> nn.Module:
        """What is evaluated and exported of the student `network`: the network itself, for most methods.

        tap: module path of the student's last feature; classifier: see `Needs.teacher_classifier`. What is returned
        shares its weights with `network` and with the method, so that it can be made once, after `build`.
        """
        return network

    @abstractmethod
    def terms(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        """The named parts of the loss, each a scalar; their sum is the method's term.

        target: `[B]` int64 labels, for methods that need them.
        """

    @property
    def teaches_peers(self) -> bool:
        """Whether it has a form for networks that teach one another.

        It has where there are no adapters and phases, which lead from one student to one trained teacher, and where
        the method makes such adapters as peers need (`build_peers`).
        """
        own = type(self).build_peers is not Method.build_peers
        return own or (type(self).build is Method.build and not self.phases())

    def build_peers(self, peers: Sequence[Shapes]) -> None:
        """Make the adapters for networks of these shapes that teach one another, in place of `build`."""
        return

    def peer_terms(
        self, peers: Sequence[Outputs], target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        """The named parts of the loss of two or more networks that teach one another, summed over the networks.

        Each network's is the mean of `terms` over all others as its teacher, without gradient to that other (Zhang
        et al., "Deep Mutual Learning", CVPR 2018).
        """
        return summed_over_pairs(peers, lambda ours, theirs: self.terms(ours, theirs, target, context))

    def forward(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> Tensor:
        """The method's own term: a scalar, without cross-entropy and without the recipe's weight."""
        return torch.stack(list(self.terms(student, teacher, target, context).values())).sum()


Peer = TypeVar("Peer")


def summed_over_pairs(peers: Sequence[Peer], terms: Callable[[Peer, Peer], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """For each peer the mean of `terms(peer, other)` over all others, summed over the peers."""
    total: dict[str, Tensor] = {}
    for ours, theirs in itertools.permutations(peers, 2):
        for name, value in terms(ours, theirs).items():
            value = value / (len(peers) - 1)
            total[name] = total[name] + value if name in total else value
    return total
