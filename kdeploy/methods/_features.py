"""What the methods on feature maps share: pairs of stages, one size for both sides, unit rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdeploy.errors import UserError
from kdeploy.methods._logits import at_least_float32
from kdeploy.methods.base import Outputs, Shapes

_TINY = 1e-12


def stage_pairs(method: str, student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor]]:
    """The features of both, stage by stage, in at least float32, the teacher's without gradient.

    Raises UserError where the two have different numbers of stages, or none.
    """
    _same_count(method, len(student.features), len(teacher.features))
    return [
        (at_least_float32(ours), at_least_float32(theirs.detach()))
        for ours, theirs in zip(student.features, teacher.features, strict=True)
    ]


def shape_pairs(
    method: str, student: Shapes, teacher: Shapes
) -> list[tuple[tuple[int, int, int], tuple[int, int, int]]]:
    """The shapes (C, H, W) of both, stage by stage; the same errors as `stage_pairs`."""
    _same_count(method, len(student.features), len(teacher.features))
    return list(zip(student.features, teacher.features, strict=True))


def _same_count(method: str, ours: int, theirs: int) -> None:
    if not ours or not theirs:
        raise UserError(
            f"{method} needs feature maps, and the {'teacher' if ours else 'student'} gives none: name taps."
        )
    if ours != theirs:
        raise UserError(
            f"{method} pairs stages one to one, and the student has {ours} taps where the teacher has {theirs}: "
            "name as many taps for both."
        )


def embeddings(method: str, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
    """The pooled embeddings `[B, D_s]` and `[B, D_t]` in at least float32, the teacher's without gradient."""
    if student.embedding is None or teacher.embedding is None:
        raise ValueError(f"{method} needs the embeddings of student and teacher")
    return at_least_float32(student.embedding), at_least_float32(teacher.embedding.detach())


def one_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool the larger map `[B, C, H, W]` to the size of the smaller, as the CIFAR-100 tables' code does.

    That code pools to squares; here height and width are each brought to the smaller one, which is the same for
    square maps and keeps others whole.
    """
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    return pooled(student, size), pooled(teacher, size)


def pooled(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Adaptive average pooling of `[B, C, H, W]` to `size` (H', W'), and nothing where it has it."""
    return features if features.shape[2:] == size else F.adaptive_avg_pool2d(features, size)


def unit(vectors: Tensor, dim: int = 1, epsilon: float = 0.0) -> Tensor:
    """vectors / (their L2 norm + epsilon) along `dim`.

    A vector whose norm is not above 1e-12 becomes zeros and gets no gradient, where a plain division gives NaN or a
    gradient of the order of 1 / epsilon.
    """
    norm = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    alive = norm > _TINY
    return torch.where(alive, vectors / (torch.where(alive, norm, 1.0) + epsilon), 0.0)
