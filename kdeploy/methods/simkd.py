"""The teacher's classifier, reused on the student's projected features."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from kdeploy.errors import UserError
from kdeploy.methods import _options
from kdeploy.methods._features import pooled
from kdeploy.methods._logits import at_least_float32
from kdeploy.methods.base import Context, Method, Needs, Outputs, Shapes
from kdeploy.models.reused_head import Projector, ReusedHead


class SimKD(Method):
    """Chen, Mei, Zhang, Wang, Feng, Chen: "Knowledge Distillation with the Reused Teacher Classifier", CVPR 2022.

    With the last maps F_s `[B, C_s, H_s, W_s]` and F_t `[B, C_t, H_t, W_t]`, and a projector P:

        L = mean over b, c, h, w of (P(F_s) - F_t)^2

    without cross-entropy: labels are not used, and the student's own classifier is not trained. What is deployed is
    the student up to that map, P, average pooling over height and width, and the teacher's linear layer, frozen.
    P is conv1x1 to C_t / reduction, conv3x3, conv1x1 to C_t, without bias, each with batch norm and ReLU. If H_s > H_t
    the student's map is average-pooled to the teacher's size before P (in deployment too), else the teacher's to the
    student's. F_t is taken behind its last ReLU, because P ends in one. Not built, P is the identity.

    The parameters and operations of P belong to the student: a comparison must count them.

    Options
    -------
    reduction: by how much P is narrower inside than the teacher's map. 2 as in the paper's main table; 4 and 8 are
        smaller and cost it 0.2 and 1.4 points from ResNet-32x4 to 8x4.
    """

    paper: ClassVar[str] = "Knowledge Distillation with the Reused Teacher Classifier, CVPR 2022, arXiv 2203.14001"
    year: ClassVar[int] = 2022
    formula: ClassVar[str] = "mean((P(F_s) - F_t)^2); deployed: student, P, average pool, the teacher's classifier"
    needs: ClassVar[Needs] = Needs(features="last", teacher_relu="after", teacher_classifier=True)

    def __init__(self, *, reduction: int = 2) -> None:
        super().__init__()
        _options.whole("simkd", least=1, reduction=reduction)
        self.reduction = reduction
        self.projector: nn.Module = nn.Identity()

    @property
    def default_cross_entropy(self) -> float:
        return 0.0

    def build(self, student: Shapes, teacher: Shapes) -> None:
        if not student.features or not teacher.features:
            raise UserError("simkd needs the last feature map of student and teacher: name taps.")
        ours, theirs = student.features[-1], teacher.features[-1]
        if teacher.embedding != theirs[0]:
            raise UserError(
                f"simkd reuses the teacher's classifier, which takes {teacher.embedding} values, on its map of "
                f"{theirs[0]} channels: name the map that its classifier pools as its last tap, or take pefd."
            )
        smaller = (theirs[1], theirs[2]) if ours[1] > theirs[1] else None
        self.projector = Projector(ours[0], theirs[0], self.reduction, smaller)

    def terms(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        ours, theirs = at_least_float32(student.features[-1]), at_least_float32(teacher.features[-1].detach())
        if ours.shape[2] > theirs.shape[2]:
            ours = pooled(ours, (theirs.shape[2], theirs.shape[3]))
        else:
            theirs = pooled(theirs, (ours.shape[2], ours.shape[3]))
        projected = at_least_float32(self.projector(ours))
        if projected.shape != theirs.shape:
            raise UserError(
                f"simkd was not built, and the student's {list(ours.shape[1:])} is not the teacher's "
                f"{list(theirs.shape[1:])} ([C, H, W]): build it, or take at."
            )
        return {"simkd": F.mse_loss(projected, theirs)}

    def deployed(self, network: nn.Module, tap: str, classifier: nn.Module | None = None) -> nn.Module:
        """The student up to `tap`, the projector, average pooling, and the teacher's `classifier`, frozen."""
        if classifier is None:
            raise ValueError("simkd's student needs the teacher's classifier")
        return ReusedHead(network, tap, self.projector, classifier)
