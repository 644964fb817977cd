"""Probabilistic knowledge transfer: who is near to whom, as conditional probabilities."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from kdeploy.methods._features import embeddings
from kdeploy.methods._logits import full_precision
from kdeploy.methods._relations import cosine_probabilities, embedding_sizes
from kdeploy.methods.base import Context, Method, Needs, Outputs, Shapes

_EPSILON = 1e-7


class PKT(Method):
    """Passalis, Tefas: "Learning Deep Representations with Probabilistic Knowledge Transfer", arXiv 1803.10837
    (ECCV 2018).

    With pooled embeddings e `[B, D]` (D may differ between the networks), u = e / (|e| + 1e-7) row by row, and

        K_ij = (<u_i, u_j> + 1) / 2,    P_ij = K_ij / sum over j of K_ij    (diagonal included)
        L    = mean over all i, j of  P_t,ij * log((P_t,ij + 1e-7) / (P_s,ij + 1e-7))

    The mean is over B^2 entries and P is of the order of 1/B, so the loss shrinks with the batch (repeating a batch
    halves it) and the published weight of 30000, the default here beside cross-entropy at 1, belongs to batches of
    64. Adapters and labels: none. A zero row has the cosine 0 with every row, itself included, and gets no
    gradient (the published code gives NaN). Half precision is computed in float32. No options.
    """

    paper: ClassVar[str] = "Learning Deep Representations with Probabilistic Knowledge Transfer, arXiv 1803.10837"
    year: ClassVar[int] = 2018
    formula: ClassVar[str] = (
        "mean over B x B of P_t log(P_t / P_s), P the row-normalised (cosine + 1) / 2 of embeddings"
    )
    needs: ClassVar[Needs] = Needs(embedding=True, whole_batch="better")

    @property
    def default_weight(self) -> float:
        return 30000.0

    def build(self, student: Shapes, teacher: Shapes) -> None:
        """No adapters: raises UserError where a network has no embedding."""
        embedding_sizes("pkt", student, teacher)

    def terms(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        with full_precision(student.logits):
            ours, theirs = (cosine_probabilities(rows, _EPSILON) for rows in embeddings("pkt", student, teacher))
            return {"pkt": (theirs * torch.log((theirs + _EPSILON) / (ours + _EPSILON))).mean()}
