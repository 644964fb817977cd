"""Information-flow modelling: the similarities in every layer, the early layers first."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from kdeploy.errors import UserError
from kdeploy.methods import _options
from kdeploy.methods._features import embeddings, stage_pairs, unit
from kdeploy.methods._logits import full_precision
from kdeploy.methods.base import Context, Method, Needs, Outputs

_NORM_EPSILON = 1e-6
_DISTANCE_EPSILON = 1e-6


class InformationFlow(Method):
    """Passalis, Tzelepi, Tefas: "Heterogeneous Knowledge Distillation Using Information Flow Modeling", CVPR 2020.

    A layer's samples x_i (rows of the embedding `[B, D]`, or of a feature map flattened to `[B, C * H * W]`) have
    similarities K_ij by two kernels, each turned into conditional probabilities P_ij = K_ij / sum over j of K_ij,
    with the diagonal:

        cosine:    K_ij = (u_i . u_j + 1) / 2,   u = x / (||x|| + 1e-6)
        T-student: K_ij = 1 / (1 + d_ij),   d_ij = sqrt(||x_i - x_j||^2 + 1e-6)

    and teacher and student are compared by the Jeffreys divergence, averaged over the B^2 pairs:

        L_layer = sum over both kernels of  mean over i, j of  (P^t - P^s) * (log P^t - log P^s)
        L = L_embedding + w * sum over stages of L_stage,   w = initial_weight * decay^epoch,  epoch from 0

    so that the early layers are led while the student's critical learning period lasts. It stands alone, without
    cross-entropy: its default is 0. Nothing then reaches the student's last linear layer; the recipe's `readout` trains
    it afterwards on the frozen features, so that the student can be deployed. The paper measures retrieval instead.

    The paper distils from an auxiliary teacher of the student's own layout, which learnt from the large one by its
    embedding alone (`layers: last`): `procedure: assistants` with one assistant, as in the recipe
    cifar10/information-flow. Stages are taken behind the ReLU; widths may differ. The paper takes them behind the
    pooling, too, which `taps` names.

    The authors' code makes a new Adam every epoch, so that its moments start from zero fifty times. That comes of
    calling its training routine once an epoch and is in no formula of the paper: dropped here, where one Adam lasts for
    the training and survives an interruption.

    The value depends on the batch: duplicating it changes P. A row of zeros gets no gradient through the cosine (the
    published code gives NaN), and opposite rows, whose K would be 0, are held at the smallest step of the float type.

    Options
    -------
    initial_weight: w in the first epoch, no unit. 100 as in the paper.
    decay: factor on w after each epoch, no unit. 0.7 as in the paper: w is below 0.01 after 26 epochs.
    layers: all, or last for the embedding alone.
    """

    paper: ClassVar[str] = "Heterogeneous Knowledge Distillation Using Information Flow Modeling, CVPR 2020, 2005.00727"
    year: ClassVar[int] = 2020
    formula: ClassVar[str] = "J(embedding) + 100 * 0.7^epoch * sum over stages of J, J of cosine and T-student kernels"
    needs: ClassVar[Needs] = Needs(
        features="all", student_relu="after", teacher_relu="after", embedding=True, whole_batch="better"
    )

    def __init__(self, *, initial_weight: float = 100.0, decay: float = 0.7, layers: str = "all") -> None:
        super().__init__()
        _options.not_negative("information-flow", initial_weight=initial_weight)
        _options.share("information-flow", decay=decay)
        _options.choice("information-flow", "layers", layers, ("all", "last"))
        self.initial_weight = initial_weight
        self.decay = decay
        self.layers = layers
        if layers == "last":  # so that no stages are looked for in a teacher that may have none to pair
            self.needs = Needs(embedding=True)  # type: ignore[misc]

    @property
    def default_cross_entropy(self) -> float:
        return 0.0

    def terms(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        losses = {"information-flow/embedding": layer_loss(*embeddings("information-flow", student, teacher))}
        if self.layers == "all" and (student.features or teacher.features):
            weight = self.initial_weight * self.decay ** (context or Context()).epoch
            for stage, (ours, theirs) in enumerate(stage_pairs("information-flow", student, teacher), 1):
                losses[f"information-flow/{stage}"] = weight * layer_loss(ours.flatten(1), theirs.flatten(1))
        return losses


def layer_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The Jeffreys divergence of rows `[B, D_s]` and `[B, D_t]` by the cosine and by the T-student kernel, summed."""
    if len(student) != len(teacher):
        raise UserError(f"information-flow: {len(student)} samples of the student, {len(teacher)} of the teacher.")
    with full_precision(student):
        return jeffreys(cosine(student), cosine(teacher)) + jeffreys(t_student(student), t_student(teacher))


def cosine(rows: Tensor) -> Tensor:
    """(u_i . u_j + 1) / 2 `[B, B]` of rows `[B, D]`, never below the float type's smallest step."""
    scaled = unit(rows, epsilon=_NORM_EPSILON)
    return ((scaled @ scaled.T + 1) / 2).clamp_min(torch.finfo(rows.dtype).eps)


def t_student(rows: Tensor) -> Tensor:
    """1 / (1 + sqrt(||x_i - x_j||^2 + 1e-6)) `[B, B]` of rows `[B, D]`."""
    centred = rows - rows.mean(dim=0)  # distances stay, and small numbers lose less in the product below
    squares = centred.square().sum(dim=1)
    distances = squares[:, None] + squares[None, :] - 2 * centred @ centred.T
    same = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    distances = distances.clamp_min(0.0).masked_fill(same, 0.0)
    return 1 / (1 + (distances + _DISTANCE_EPSILON).sqrt())


def jeffreys(student: Tensor, teacher: Tensor) -> Tensor:
    """mean of (P^t - P^s) * (log P^t - log P^s) with P the rows of similarities `[B, B]` over their sums."""
    ours, theirs = (kernel / kernel.sum(dim=1, keepdim=True) for kernel in (student, teacher))
    return ((theirs - ours) * (theirs.log() - ours.log())).mean()
