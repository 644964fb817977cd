"""What the methods on relations between samples share: unit vectors, differences, the embeddings of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from kdeploy.methods._logits import at_least_float32
from kdeploy.methods.base import Outputs


def embeddings(method: str, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
    """Both embeddings `[B, D]` in at least float32, the teacher's without gradient; ValueError where one is missing."""
    if student.embedding is None or teacher.embedding is None:
        raise ValueError(f"{method} needs the embeddings of both networks")
    return at_least_float32(student.embedding), at_least_float32(teacher.embedding.detach())


def unit(vectors: Tensor, dim: int = 1, epsilon: float = 0.0) -> Tensor:
    """vectors / (their L2 norm + epsilon) along `dim`.

    A vector no longer than 1e-12 becomes zeros and gets no gradient, where a plain division gives NaN or a gradient
    of the order of 1 / epsilon.
    """
    norms = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    vanished = norms <= 1e-12
    directions = vectors / (torch.where(vanished, torch.ones_like(norms), norms) + epsilon)
    return torch.where(vanished, torch.zeros_like(vectors), directions)


def cosine_probabilities(embeddings: Tensor, epsilon: float) -> Tensor:
    """P `[B, B]` with P_ij = K_ij / sum over j of K_ij and K_ij = (cos(e_i, e_j) + 1) / 2, the diagonal included."""
    directions = unit(embeddings, epsilon=epsilon)
    kernel = (directions @ directions.T + 1) / 2
    return kernel / kernel.sum(dim=1, keepdim=True)
