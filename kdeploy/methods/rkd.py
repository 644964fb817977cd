"""Relational knowledge distillation: distances between samples and angles among them."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from kdeploy.methods import _options
from kdeploy.methods._features import embeddings, unit
from kdeploy.methods._logits import full_precision
from kdeploy.methods._relations import embedding_sizes
from kdeploy.methods.base import Context, Method, Needs, Outputs, Shapes


class RKD(Method):
    """Park, Kim, Lu, Cho: "Relational Knowledge Distillation", arXiv 1904.05068 (CVPR 2019).

    With pooled embeddings e `[B, D]` (D may differ between the networks) and h the smooth L1 loss (Huber, delta 1):

        d_ij  = sqrt(max(|e_i - e_j|^2, 1e-12)), 0 on the diagonal, divided by the mean over all i != j
        L_D   = mean over all i, j of  h(d_s,ij, d_t,ij)
        a_ijk = <v_ij, v_ik>,  v_ij = (e_j - e_i) / |e_j - e_i|
        L_A   = mean over all i, j, k of  h(a_s,ijk, a_t,ijk)
        L     = distance * L_D + angle * L_A

    Memory of the angles: B^3 numbers for each network (1 MB in float32 at B = 64, 0.5 GB at 512). Adapters and
    labels: none. Two equal rows have the distance 1e-6 and no direction, and their pair gets no gradient (the
    published code gives one of the order of 1e11); with one sample the loss is 0 (there: NaN). Differences are taken
    before squares, in at least float32.

    Options
    -------
    distance, angle: weights of the two parts; 25 and 50 are behind the tables of classification. For metric
        learning the paper has 1 and 2, without cross-entropy.
    """

    paper: ClassVar[str] = "Relational Knowledge Distillation, arXiv 1904.05068"
    year: ClassVar[int] = 2019
    formula: ClassVar[str] = "distance * huber(normalised pair distances) + angle * huber(cosines of triplets' angles)"
    needs: ClassVar[Needs] = Needs(embedding=True, whole_batch="better")

    def __init__(self, *, distance: float = 25.0, angle: float = 50.0) -> None:
        super().__init__()
        self.distance = distance
        self.angle = angle
        _options.not_negative("rkd", distance=distance, angle=angle)

    def build(self, student: Shapes, teacher: Shapes) -> None:
        """No adapters: raises UserError where a network has no embedding."""
        embedding_sizes("rkd", student, teacher)

    def terms(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        with full_precision(student.logits):
            ours, theirs = (_differences(rows) for rows in embeddings("rkd", student, teacher))
            return {
                "distance": self.distance * F.smooth_l1_loss(_distances(ours), _distances(theirs)),
                "angle": self.angle * F.smooth_l1_loss(_angles(ours), _angles(theirs)),
            }


def _differences(embedding: Tensor) -> Tensor:
    """e_j - e_i at [i, j]: `[B, B, D]`."""
    return embedding.unsqueeze(0) - embedding.unsqueeze(1)


def _distances(differences: Tensor) -> Tensor:
    """The distances `[B, B]`, divided by their mean over the pairs i != j."""
    batch = differences.shape[0]
    apart = 1 - torch.eye(batch, dtype=differences.dtype, device=differences.device)
    distances = differences.square().sum(dim=2).clamp(min=1e-12).sqrt() * apart
    return distances * (batch * (batch - 1)) / distances.sum().clamp(min=1e-12)


def _angles(differences: Tensor) -> Tensor:
    """The cosine of the angle at i between j and k: `[B, B, B]`; 0 where i is j or k."""
    directions = unit(differences, dim=2)
    return directions @ directions.transpose(1, 2)
