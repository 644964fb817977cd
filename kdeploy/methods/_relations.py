"""What the methods on relations between samples share."""

from __future__ import annotations

from torch import Tensor

from kdeploy.errors import UserError
from kdeploy.methods._features import unit
from kdeploy.methods.base import Shapes


def embedding_sizes(method: str, student: Shapes, teacher: Shapes) -> tuple[int, int]:
    """D_s and D_t; raises UserError where a network has no embedding."""
    if student.embedding is None or teacher.embedding is None:
        lacking = "student" if student.embedding is None else "teacher"
        raise UserError(f"{method} needs the pooled embedding of both networks, and the {lacking} has none; take kd.")
    return student.embedding, teacher.embedding


def cosine_probabilities(embeddings: Tensor, epsilon: float) -> Tensor:
    """P `[B, B]` with P_ij = K_ij / sum over j of K_ij and K_ij = (cos(e_i, e_j) + 1) / 2, the diagonal included."""
    directions = unit(embeddings, epsilon=epsilon)
    kernel = (directions @ directions.T + 1) / 2
    return kernel / kernel.sum(dim=1, keepdim=True)
