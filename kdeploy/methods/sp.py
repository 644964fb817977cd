"""Similarity-preserving distillation: which samples excite the same features."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from kdeploy.errors import UserError
from kdeploy.methods._features import unit
from kdeploy.methods._logits import at_least_float32, full_precision
from kdeploy.methods.base import Context, Method, Needs, Outputs, Shapes


class SP(Method):
    """Tung, Mori: "Similarity-Preserving Knowledge Distillation", ICCV 2019.

    With the last stage's feature maps F `[B, C, H, W]` (channels and sizes may differ between the networks):

        A = F reshaped to [B, C*H*W],    G = A A^T `[B, B]`,    N = G with each row divided by its L2 norm
        L = (1/B^2) * |N_t - N_s|_F^2

    Not centred, the diagonal included; rows are divided by their own L2 norm, neither by the L1 norm nor by |G|_F.
    At a fixed structure of similarities the loss falls as 1/B (repeating a batch halves it); the published weight of
    3000, the default here beside cross-entropy at 1, belongs to batches of 64. Adapters and labels: none. A sample
    whose map is zero has a row of zeros, which gets no gradient. Computed in at least float32. No options.
    """

    paper: ClassVar[str] = "Similarity-Preserving Knowledge Distillation, ICCV 2019"
    year: ClassVar[int] = 2019
    formula: ClassVar[str] = "1/B^2 * |N_t - N_s|^2, N = A A^T with rows of L2 norm 1, A = the last features [B, CHW]"
    needs: ClassVar[Needs] = Needs(features="last", whole_batch="better")

    @property
    def default_weight(self) -> float:
        return 3000.0

    def build(self, student: Shapes, teacher: Shapes) -> None:
        """No adapters: raises UserError where a network gives no feature maps."""
        if not student.features or not teacher.features:
            lacking = "teacher" if student.features else "student"
            raise UserError(
                f"sp needs the last stage's feature maps, and the {lacking} gives none: name taps or take kd."
            )

    def terms(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        with full_precision(student.logits):
            ours, theirs = (_similarities(maps) for maps in (student.features[-1], teacher.features[-1].detach()))
            return {"sp": F.mse_loss(ours, theirs)}


def _similarities(features: Tensor) -> Tensor:
    """The inner products `[B, B]` of the samples' flattened maps, each row divided by its norm."""
    rows = at_least_float32(features).flatten(start_dim=1)
    return unit(rows @ rows.T)
