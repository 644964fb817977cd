"""DIST: the correlations of predictions between and within classes."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from kdeploy.methods import _logits, _options
from kdeploy.methods.base import Context, Method, Needs, Outputs


class DIST(Method):
    """Huang, You, Wang, Qian, Xu: "Knowledge Distillation from A Stronger Teacher", arXiv 2205.10536 (NeurIPS 2022).

    With logits z `[B, C]`, Y = softmax(z / T) `[B, C]`, and Pearson's correlation
    rho(a, b) = <a - mean a, b - mean b> / (|a - mean a| * |b - mean b| + 1e-8):

        inter = 1 - mean over rows b     of rho(Y_s[b, :], Y_t[b, :])
        intra = 1 - mean over columns c  of rho(Y_s[:, c], Y_t[:, c])
        L     = T^2 * (beta * inter + gamma * intra),    between 0 and 2 * T^2 * (beta + gamma)

    The correlation is one of probabilities, not of logits. Because of the 1e-8 the loss of two equal networks is not
    quite 0 (1e-4 at T = 4). The intra part depends on the size of the batch; with one sample every column is
    constant, and it is the constant T^2 * gamma. A constant row or column has correlation 0 and gets no gradient
    (the published code gives one of the order of 1e6 there). In half precision it is taken in float32.

    Options
    -------
    temperature: T, no unit; 4 on CIFAR-100, 1 on ImageNet.
    beta, gamma: weights of inter and intra; 1 and 1 in the published configurations, with 2 for the whole term,
        which is the default weight here.
    """

    paper: ClassVar[str] = "Knowledge Distillation from A Stronger Teacher, arXiv 2205.10536"
    year: ClassVar[int] = 2022
    formula: ClassVar[str] = "T^2 * (beta * (1 - mean row correlation) + gamma * (1 - mean column correlation))"
    needs: ClassVar[Needs] = Needs(whole_batch="better")

    def __init__(self, *, temperature: float = 4.0, beta: float = 1.0, gamma: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.beta = beta
        self.gamma = gamma
        _options.positive("dist", temperature=temperature)
        _options.not_negative("dist", beta=beta, gamma=gamma)

    @property
    def default_weight(self) -> float:
        return 2.0

    def terms(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        logits = _logits.pair(student.logits, teacher.logits)
        ours, theirs = (F.softmax(of_one / self.temperature, dim=1) for of_one in logits)
        return {
            "inter": self.beta * self.temperature**2 * (1 - _correlation(ours, theirs).mean()),
            "intra": self.gamma * self.temperature**2 * (1 - _correlation(ours.T, theirs.T).mean()),
        }


def _correlation(ours: Tensor, theirs: Tensor) -> Tensor:
    """Pearson's correlation of each row of two `[N, M]`: `[N]`; 0 without gradient where a row is constant."""
    (ours, our_constant), (theirs, their_constant) = _centred(ours), _centred(theirs)
    product = torch.linalg.vector_norm(ours, dim=1) * torch.linalg.vector_norm(theirs, dim=1)
    correlation = (ours * theirs).sum(dim=1) / (product + 1e-8)
    return torch.where(our_constant | their_constant, torch.zeros_like(correlation), correlation)


def _centred(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The rows without their mean `[N, M]`, and which of them were constant up to rounding `[N]`."""
    centred = rows - rows.mean(dim=1, keepdim=True)
    rounding = 8 * torch.finfo(rows.dtype).eps * rows.detach().abs().amax(dim=1)
    return centred, centred.detach().abs().amax(dim=1) <= rounding
