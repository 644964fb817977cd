"""Correlation congruence, in the three forms that carry the name."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdeploy.errors import UserError
from kdeploy.methods import _options
from kdeploy.methods._features import embeddings, unit
from kdeploy.methods._logits import at_least_float32, full_precision
from kdeploy.methods._relations import embedding_sizes
from kdeploy.methods.base import Context, Method, Needs, Outputs, Shapes

_FORMS = ("code", "paper", "torchdistill")
_KERNELS = ("gaussian", "bilinear")


class CC(Method):
    """Peng, Jin, Liu, Li, Wu, Liu, Zhou, Zhang: "Correlation Congruence for Knowledge Distillation", arXiv 1904.01802
    (ICCV 2019).

    With pooled embeddings e_s `[B, D_s]` and e_t `[B, D_t]`, `form` names one of three different losses:

    code, behind every CC row of the CIFAR-100 tables. E_s and E_t are linear maps with bias to `dimension`, both
    trained, and delta = |E_s(e_s) - E_t(e_t)| `[B, d]`:

        L = 1/(B - 1) * sum over b < B, k of  delta_b,k * delta_b+1,k

    products of neighbours in the order of the batch; 0 as soon as every second row agrees. With one sample it is 0
    (the published code: NaN). Default weight 0.02.

    paper. With f the rows of e divided by their L2 norm, no adapters and D_s, D_t free:

        K_ij = exp(-2 gamma) * sum over p = 0 .. order of  (2 gamma)^p / p! * <f_i, f_j>^p
        L    = mean over all i, j of  (K_s,ij - K_t,ij)^2

    K is the Taylor series of exp(-gamma * |f_i - f_j|^2). The paper's weights are not established here: the default
    weight is 1, and a recipe should set it. A zero row stays zero and gets no gradient.

    torchdistill. The same kernel on E_s(e_s), E_t(e_t) *without* dividing by the norm, so that it grows with the
    fourth power of the features; `kernel: bilinear` is K = f f^T:

        L = |K_s - K_t|_F / B^2          (the norm is not squared)

    Default weight 0.003. Not built, E_s and E_t are the identity. Labels: none. Computed in at least float32.

    Options
    -------
    form: code, paper or torchdistill.
    dimension: of what E_s and E_t give; 128 in both codes. Without meaning in the form paper.
    gamma, order: of the kernel; 0.4 and 2. Without meaning in the form code.
    kernel: gaussian, or bilinear (form torchdistill only).
    """

    paper: ClassVar[str] = "Correlation Congruence for Knowledge Distillation, arXiv 1904.01802"
    year: ClassVar[int] = 2019
    formula: ClassVar[str] = (
        "code: 1/(B-1) sum of |E_s e_s - E_t e_t| of neighbours; paper: mean (K_s - K_t)^2, K Gaussian"
    )
    needs: ClassVar[Needs] = Needs(embedding=True, whole_batch="better")

    def __init__(
        self,
        *,
        form: str = "code",
        dimension: int = 128,
        gamma: float = 0.4,
        order: int = 2,
        kernel: str = "gaussian",
    ) -> None:
        super().__init__()
        _options.choice("cc", "form", form, _FORMS)
        _options.choice("cc", "kernel", kernel, _KERNELS)
        _options.positive("cc", gamma=gamma)
        _options.whole("cc", least=1, dimension=dimension, order=order)
        if kernel == "bilinear" and form != "torchdistill":
            raise UserError(f"cc: the kernel bilinear belongs to form torchdistill, not to {form}.")
        self.form = form
        self.dimension = dimension
        self.gamma = gamma
        self.order = order
        self.kernel = kernel
        self.embed_student: nn.Module = nn.Identity()
        self.embed_teacher: nn.Module = nn.Identity()

    @property
    def default_weight(self) -> float:
        return {"code": 0.02, "paper": 1.0, "torchdistill": 0.003}[self.form]

    def build(self, student: Shapes, teacher: Shapes) -> None:
        ours, theirs = embedding_sizes("cc", student, teacher)
        if self.form != "paper":
            self.embed_student = nn.Linear(ours, self.dimension)
            self.embed_teacher = nn.Linear(theirs, self.dimension)

    def terms(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        ours, theirs = embeddings("cc", student, teacher)
        ours, theirs = at_least_float32(self.embed_student(ours)), at_least_float32(self.embed_teacher(theirs))
        with full_precision(ours):
            if self.form == "code":
                return {"cc": _neighbours((ours - theirs).abs())}
            if self.form == "paper":
                return {"cc": F.mse_loss(self._kernel(unit(ours)), self._kernel(unit(theirs)))}
            difference = self._kernel(ours) - self._kernel(theirs)
            return {"cc": torch.linalg.vector_norm(difference) / ours.shape[0] ** 2}

    def _kernel(self, rows: Tensor) -> Tensor:
        """K `[B, B]` of the rows `[B, D]`."""
        products = rows @ rows.T
        if self.kernel == "bilinear":
            return products
        twice = 2 * self.gamma
        series = (twice**power / math.factorial(power) * products**power for power in range(self.order + 1))
        return math.exp(-twice) * torch.stack(list(series)).sum(dim=0)


def _neighbours(delta: Tensor) -> Tensor:
    """The products of neighbouring rows of `[B, d]`, summed over d and averaged over the B - 1 pairs; 0 for B = 1."""
    return (delta[:-1] * delta[1:]).sum() / max(delta.shape[0] - 1, 1)
