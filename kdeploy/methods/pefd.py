"""Projector ensemble: the direction of the teacher's embedding, met by the mean of several projectors."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from kdeploy.methods import _options
from kdeploy.methods._features import embeddings, unit
from kdeploy.methods._logits import at_least_float32, full_precision
from kdeploy.methods._relations import embedding_sizes
from kdeploy.methods.base import Context, Method, Needs, Outputs, Shapes


class PEFD(Method):
    """Chen, Wang, Liu, Xu, de Hoog, Huang: "Improved Feature Distillation via Projector Ensemble", arXiv 2210.15274
    (NeurIPS 2022).

    With pooled embeddings e_s `[B, D_s]` and e_t `[B, D_t]`, and q linear projectors with bias, D_s to D_t:

        g = (1/q) * sum over i of relu(W_i e_s + b_i)
        L = (1/B) * sum over b of  (1 - cos(g_b, e_t,b))

    The mean is taken after the ReLU: before it, the projectors would collapse into one. They differ by their random
    initialisation alone, are used also where D_s = D_t, train with the student and are dropped afterwards. Not
    built, the projection is the identity. No labels, and no distillation of logits beside it.

    Where all ReLUs of a sample are dead, or a teacher's row is zero, the cosine is 0 without gradient (the published
    code gives NaN). The cosine is taken in at least float32.

    Options
    -------
    projectors: q; 3 in the paper. The default weight, 25 beside cross-entropy at 1, is its own as well.
    """

    paper: ClassVar[str] = "Improved Feature Distillation via Projector Ensemble, arXiv 2210.15274"
    year: ClassVar[int] = 2022
    formula: ClassVar[str] = "1 - cos(mean over i of relu(W_i e_s + b_i), e_t), mean over the batch"
    needs: ClassVar[Needs] = Needs(embedding=True)

    def __init__(self, *, projectors: int = 3) -> None:
        super().__init__()
        _options.whole("pefd", least=1, projectors=projectors)
        self.count = projectors
        self.projectors = nn.ModuleList()

    @property
    def default_weight(self) -> float:
        return 25.0

    def build(self, student: Shapes, teacher: Shapes) -> None:
        ours, theirs = embedding_sizes("pefd", student, teacher)
        layers = (nn.Linear(ours, theirs) for _ in range(self.count))
        self.projectors = nn.ModuleList(layers)

    def terms(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        ours, theirs = embeddings("pefd", student, teacher)
        projected = self._project(ours)
        with full_precision(student.logits):
            cosines = (unit(at_least_float32(projected)) * unit(theirs)).sum(dim=1)
            return {"pefd": (1 - cosines).mean()}

    def _project(self, embedding: Tensor) -> Tensor:
        """The mean of the projectors' outputs `[B, D_t]`."""
        if not self.projectors:
            return embedding
        return torch.stack([projector(embedding).relu() for projector in self.projectors]).mean(dim=0)
