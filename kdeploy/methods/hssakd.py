"""Hierarchical self-supervision augmented distillation: class and rotation, told apart behind each stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdeploy.errors import UserError
from kdeploy.methods import _options
from kdeploy.methods._features import shape_pairs
from kdeploy.methods._heads import make_heads
from kdeploy.methods._logits import at_least_float32, class_indices, divergence
from kdeploy.methods.base import Context, Method, Needs, Outputs, Phase, Shapes, summed_over_pairs

_ROTATIONS = 4
_HEAD_LR = 0.05


class HSSAKD(Method):
    """Yang, An, Cai, Xu: "Hierarchical Self-supervised Augmented Knowledge Distillation", IJCAI 2021, and "Knowledge
    Distillation Using Hierarchical Self-Supervision Augmented Distribution", IEEE TNNLS 2022, arXiv 2109.03075.

    Each image is seen four times, turned by j = 0 ... 3 quarters counter-clockwise, in row 4b + j. With logits
    z `[4B, C]`, a head behind each stage l of each network with logits a_l `[4B, 4C]`, labels y `[B]`, joint labels
    4 y_b + j of row 4b + j, and D(t, s) = T^2 * KL(softmax(t / T) || softmax(s / T)), mean over all 4B rows:

        teacher's heads, a training that comes first:   sum over l of CE(a_t,l, joint)
        student:    L = D(z_t, z_s) + sum over l of D(a_t,l, a_s,l)
        n peers:    L = sum over i and l of CE(a_i,l, joint)
                        + 1/(n-1) * sum over i and k != i of (D(z_k, z_i) + sum over l of D(a_k,l, a_i,l))

    all beside cross-entropy of z with y on the unturned rows 4b only, at weight 1 (the recipe's). The student's heads
    get no labels. The gradient of heads goes on into the student, or the peer; the target of each D gets none. The
    published form for peers is that of two; for more, the sum is divided by n - 1 as in deep mutual learning.

    Teacher's and student's heads are adapters: left out of what is exported. A head is a copy, with weights of its
    own, of the stages behind its own (behind the last, one more of that width with stride 1), average pooling and a
    linear layer, where the network offers its stages: ResNet, wide ResNet and VGG of the zoo. For other networks, and
    from shapes alone, a stage is one bottleneck block: the published tables have the networks' own there as well.
    The teacher's heads are trained on the frozen teacher in evaluation mode and then frozen too, which is the paper's
    variant "Teacher". Its "Teacher*", heads and backbone trained together from scratch, is left out: a teacher is a
    network that is trained by itself, before any method, and shared by all. Not built, there are no heads.

    Options
    -------
    temperature: T, no unit. 3 as in the tables.
    head_epochs: length of the training of the teacher's heads, at a learning rate of 0.05 that is multiplied by 0.1
        after 3, 6 and 9 tenths of it. 100 as in the tables.
    """

    paper: ClassVar[str] = (
        "Hierarchical Self-supervised Augmented Knowledge Distillation, IJCAI 2021, arXiv 2107.13715; "
        "IEEE TNNLS 2022, arXiv 2109.03075"
    )
    year: ClassVar[int] = 2021
    formula: ClassVar[str] = "D(z_t, z_s) + sum over l of D(a_t,l, a_s,l), D = T^2 KL, a_l: classes times rotations"
    needs: ClassVar[Needs] = Needs(features="all", labels=True, rotations=4)

    def __init__(self, *, temperature: float = 3.0, head_epochs: int = 100) -> None:
        super().__init__()
        _options.positive("hssakd", temperature=temperature)
        _options.whole("hssakd", least=1, head_epochs=head_epochs)
        self.temperature = temperature
        self.head_epochs = head_epochs
        self.student_heads = nn.ModuleList()
        self.teacher_heads = nn.ModuleList()
        self.peer_heads = nn.ModuleList()
        self._frozen = False

    def build(self, student: Shapes, teacher: Shapes) -> None:
        shape_pairs("hssakd", student, teacher)
        self.student_heads = make_heads(student, _ROTATIONS * student.classes)
        self.teacher_heads = make_heads(teacher, _ROTATIONS * teacher.classes)

    def build_peers(self, peers: Sequence[Shapes]) -> None:
        """Make the heads of each of two or more networks."""
        for other in peers[1:]:
            shape_pairs("hssakd", peers[0], other)
        self.peer_heads = nn.ModuleList(make_heads(each, _ROTATIONS * each.classes) for each in peers)

    def phases(self) -> Sequence[Phase]:
        milestones = {max(1, tenths * self.head_epochs // 10) for tenths in (3, 6, 9)}
        return (Phase("teacher-heads", self.head_epochs, _HEAD_LR, milestones=tuple(sorted(milestones))),)

    def phase_loss(
        self, phase: Phase, teacher: Outputs, student: Outputs | None = None, target: Tensor | None = None
    ) -> Tensor:
        """Cross-entropy of the teacher's heads with the joint labels, summed over the heads."""
        features = [feature.detach() for feature in teacher.features]
        return joint_cross_entropy(_run(self.teacher_heads, features), class_indices("hssakd", target))

    def end_phase(self, phase: Phase) -> None:
        self._frozen = True
        self.teacher_heads.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> HSSAKD:
        """As every module's, but the teacher's heads stay in evaluation mode once they are trained."""
        super().train(mode)
        if self._frozen:
            self.teacher_heads.eval()
        return self

    def terms(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        ours = _run(self.student_heads, student.features)
        with torch.no_grad():
            theirs = _run(self.teacher_heads, teacher.features)
        return distilled((student.logits, ours), (teacher.logits, theirs), self.temperature)

    def peer_terms(
        self, peers: Sequence[Outputs], target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        if len(self.peer_heads) != len(peers):
            raise ValueError("hssakd needs build_peers before its first loss of peers")
        given = [
            (outputs.logits, _run(heads, outputs.features))
            for heads, outputs in zip(self._heads_of_peers(), peers, strict=True)
        ]
        return taught_by_one_another(given, class_indices("hssakd", target), self.temperature)

    def _heads_of_peers(self) -> list[nn.ModuleList]:
        return [heads for heads in self.peer_heads if isinstance(heads, nn.ModuleList)]


Answers = tuple[Tensor, Sequence[Tensor]]
"""What a network says: logits `[4B, C]`, and those of its heads, each `[4B, 4C]`."""


def joint_labels(target: Tensor) -> Tensor:
    """4 y_b + j of row 4b + j, `[4B]`, from labels y `[B]`."""
    turned = torch.arange(_ROTATIONS, device=target.device)
    return (_ROTATIONS * target[:, None] + turned).flatten()


def joint_cross_entropy(heads: Sequence[Tensor], target: Tensor) -> Tensor:
    """Mean cross-entropy of logits `[4B, 4C]` with the joint labels of `target` `[B]`, summed over the heads."""
    if not heads:
        raise ValueError("hssakd needs build before a loss of its heads")
    labels = joint_labels(target)
    return torch.stack([F.cross_entropy(at_least_float32(logits), labels) for logits in heads]).sum()


def distilled(student: Answers, teacher: Answers, temperature: float) -> dict[str, Tensor]:
    """The divergences of the student from the teacher: of the logits, and summed over the heads, if there are any."""
    terms = {"hssakd/logits": divergence(student[0], teacher[0], temperature)}
    pairs = list(zip(student[1], teacher[1], strict=True))
    if pairs:
        terms["hssakd/heads"] = torch.stack([divergence(*pair, temperature) for pair in pairs]).sum()
    return terms


def taught_by_one_another(peers: Sequence[Answers], target: Tensor, temperature: float) -> dict[str, Tensor]:
    """The loss of peers but for the cross-entropy of their logits, summed over the peers."""
    labels = torch.stack([joint_cross_entropy(heads, target) for _, heads in peers]).sum()
    return {
        "hssakd/labels": labels,
        **summed_over_pairs(peers, lambda ours, theirs: distilled(ours, theirs, temperature)),
    }


def _run(heads: nn.ModuleList, features: Sequence[Tensor]) -> list[Tensor]:
    """What each head says of its feature; nothing where there are no heads."""
    if not heads:
        return []
    if len(heads) != len(features):
        raise UserError(f"hssakd has a head behind each of {len(heads)} taps, and was given {len(features)} features.")
    return [head(feature) for head, feature in zip(heads, features, strict=True)]
