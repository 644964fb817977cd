"""Variational information distillation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdeploy.methods._features import one_size, shape_pairs, stage_pairs
from kdeploy.methods._logits import at_least_float32
from kdeploy.methods.base import Context, Method, Needs, Outputs, Shapes

_LEAST_VARIANCE = 1e-5
_INITIAL_VARIANCE = 5.0


class VID(Method):
    """Ahn, Hu, Damianou, Lawrence, Dai: "Variational Information Distillation for Knowledge Transfer", CVPR 2019.

    For each pair of stages F_s `[B, C_s, H, W]`, F_t `[B, C_t, H, W]`, a regressor r predicts the teacher's map with
    one variance a teacher channel, shared by samples and positions:

        mu = r(F_s)     sigma_c^2 = softplus(a_c) + 1e-5
        L = sum over stages of  mean over b, c, h, w of  ((F_t - mu)^2 / sigma_c^2 + log sigma_c^2) / 2

    r is conv1x1(C_s, C_t), ReLU, conv1x1(C_t, C_t), ReLU, conv1x1(C_t, C_t), without bias, batch norm or last ReLU.
    a_c starts where sigma_c^2 is exactly 5, and is trained with r (in half-precision runs in float32; weight decay
    acts on it, as in the tables' code). Where sizes differ the larger map is average-pooled to the smaller, before r.

    The value is a negative log-likelihood without its constant: a perfect regressor has log(5) / 2 = 0.805 a stage at
    first, and the sum may fall below 0. The paper sums over c, h, w and weighs its layers; its weights are not known
    here, so only the form of the tables' code is offered (weight 1). Not built, r is the identity and sigma^2 is 5.
    """

    paper: ClassVar[str] = "Variational Information Distillation for Knowledge Transfer, CVPR 2019, arXiv 1904.05835"
    year: ClassVar[int] = 2019
    formula: ClassVar[str] = "sum over stages of mean(((F_t - r(F_s))^2 / sigma_c^2 + log sigma_c^2) / 2)"
    needs: ClassVar[Needs] = Needs(features="all")

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList()

    def build(self, student: Shapes, teacher: Shapes) -> None:
        pairs = shape_pairs("vid", student, teacher)
        self.stages = nn.ModuleList(Gaussian(ours[0], theirs[0]) for ours, theirs in pairs)

    def terms(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        pairs = [one_size(ours, theirs) for ours, theirs in stage_pairs("vid", student, teacher)]
        stages: list[Callable[[Tensor], tuple[Tensor, Tensor]]] = list(self.stages) or [_fixed] * len(pairs)
        return {
            f"vid/{number}": negative_log_likelihood(theirs, *stage(ours))
            for number, (stage, (ours, theirs)) in enumerate(zip(stages, pairs, strict=True), 1)
        }


class Gaussian(nn.Module):
    """What the student's map says of the teacher's: a mean for each value, a variance for each channel.

    log_scale: `[C_t]`, the a of the formula.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.regressor = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 1, bias=False),
        )
        start = math.log(math.expm1(_INITIAL_VARIANCE - _LEAST_VARIANCE))
        self.log_scale = nn.Parameter(torch.full((outputs,), start))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, C_s, H, W]` to mean `[B, C_t, H, W]` and variance `[1, C_t, 1, 1]`, in at least float32."""
        variance = F.softplus(at_least_float32(self.log_scale)) + _LEAST_VARIANCE
        return at_least_float32(self.regressor(features)), variance.view(1, -1, 1, 1)


def _fixed(features: Tensor) -> tuple[Tensor, Tensor]:
    return features, features.new_full((), _INITIAL_VARIANCE)


def negative_log_likelihood(target: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Of a Gaussian, without its constant log(2 pi) / 2, averaged over every element of `[B, C, H, W]`."""
    return ((target - mean).square() / variance + variance.log()).mean() / 2
