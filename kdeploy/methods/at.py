"""Attention transfer."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from kdeploy.methods import _options
from kdeploy.methods._features import one_size, stage_pairs, unit
from kdeploy.methods.base import Context, Method, Needs, Outputs


class AT(Method):
    """Zagoruyko, Komodakis: "Paying More Attention to Attention", ICLR 2017, arXiv 1612.03928.

    A map F `[B, C, H, W]` has the attention, with every row `[H * W]` scaled to L2 norm 1,

        A(F) = unit(vec(mean over c of |F|^p))        [B, H * W]

    and with the stages of student and teacher paired in order, A_s and A_t of each pair,

        form code:   L = sum over stages of  mean over b, i of  (A_s - A_t)^2
        form paper:  L = sum over stages of  mean over b of  ||A_s - A_t||_2

    The two are not proportional. Where the maps of a pair differ in size, the larger is average-pooled to the
    smaller before |.|^p; channels may differ. A map that is all zero has attention zero, and gets no gradient.
    The teacher gets none either. Half precision is raised to float32.

    Options
    -------
    form: code is the authors' code and behind all published tables, at weight 1000. paper is the article's
        formula, at weight beta / 2 = 500.
    power: p, no unit. 2 as in the authors' code and the tables.
    """

    paper: ClassVar[str] = "Paying More Attention to Attention, ICLR 2017, arXiv 1612.03928"
    year: ClassVar[int] = 2017
    formula: ClassVar[str] = "sum over stages of mean((A_s - A_t)^2), A = unit(vec(mean_c |F|^p))"
    needs: ClassVar[Needs] = Needs(features="all")

    def __init__(self, *, form: str = "code", power: float = 2.0) -> None:
        super().__init__()
        _options.choice("at", "form", form, ("code", "paper"))
        _options.positive("at", power=power)
        self.form = form
        self.power = power

    @property
    def default_weight(self) -> float:
        return 1000.0 if self.form == "code" else 500.0

    def terms(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        losses = {}
        for stage, (ours, theirs) in enumerate(stage_pairs("at", student, teacher), 1):
            ours, theirs = (attention(features, self.power) for features in one_size(ours, theirs))
            if self.form == "code":
                losses[f"at/{stage}"] = F.mse_loss(ours, theirs)
            else:
                losses[f"at/{stage}"] = torch.linalg.vector_norm(ours - theirs, dim=1).mean()
        return losses


def attention(features: Tensor, power: float = 2.0) -> Tensor:
    """Where `[B, C, H, W]` is strong: the mean of |F|^power over the channels as rows `[B, H * W]` of L2 norm 1."""
    return unit(features.abs().pow(power).mean(dim=1).flatten(1))
