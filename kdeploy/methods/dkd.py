"""Decoupled knowledge distillation: the target class and the others, weighted apart."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from kdeploy.methods import _logits, _options
from kdeploy.methods.base import Context, Method, Needs, Outputs


class DKD(Method):
    """Zhao, Cui, Song, Qiu, Liang: "Decoupled Knowledge Distillation", arXiv 2203.08679 (CVPR 2022).

    With logits z `[B, C]`, labels y `[B]`, p = softmax(z / T), b = [p_y, 1 - p_y], and q the softmax of z / T over
    the C - 1 classes other than y:

        TCKD = T^2 * (1/B) * sum over b of  KL(b_t || b_s)
        NCKD = T^2 * (1/B) * sum over b of  KL(q_t || q_s)
        L    = w * (alpha * TCKD + beta * NCKD),    w = min((epoch + 1) / warmup, 1)

    with the epoch counted from 0, so that w is 1/warmup in the first; without a context w is 1. Of one sample,
    KD = TCKD + (1 - p_t,y) * NCKD. Cross-entropy has weight 1 beside it.

    Everything is taken from log-sum-exps, and the target's column is left out rather than lowered by 1000 as the
    published code does: finite for any logits, where that code gives inf and NaN. In half precision it is taken in
    float32. With two classes NCKD is 0. Labels must be class indices: mixed labels have no target class.

    Options
    -------
    alpha: weight of TCKD; 1 in the paper.
    beta: weight of NCKD; 8 for ResNet-32x4 to 8x4 and most cross-style pairs, 6 for the WRN and VGG pairs, 2 for
        ResNet-56 to 20 and 110 to 32; ImageNet 0.5 and 2.
    temperature: T, no unit. Not given, 4 (CIFAR-100 tables; ImageNet 1), and 2 with `standardize`.
    warmup: epochs over which the term grows to its full weight; 20 on CIFAR-100, 1 on ImageNet (no warm-up).
    standardize: standardise the logits of both networks first, as kd does (arXiv 2403.01427). That paper multiplies
        alpha and beta by 9 or more; here it is the default weight, 9.
    """

    paper: ClassVar[str] = "Decoupled Knowledge Distillation, arXiv 2203.08679"
    year: ClassVar[int] = 2022
    formula: ClassVar[str] = (
        "min((epoch+1)/warmup, 1) * (alpha * TCKD + beta * NCKD), each T^2 * KL, mean over the batch"
    )
    needs: ClassVar[Needs] = Needs(labels=True)

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float | None = None,
        warmup: int = 20,
        standardize: bool = False,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.beta = beta
        self.temperature = temperature if temperature is not None else (2.0 if standardize else 4.0)
        self.warmup = warmup
        self.standardize = standardize
        _options.not_negative("dkd", alpha=alpha, beta=beta)
        _options.positive("dkd", temperature=self.temperature)
        _options.whole("dkd", least=1, warmup=warmup)

    @property
    def default_weight(self) -> float:
        return 9.0 if self.standardize else 1.0

    def terms(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        target = _logits.class_indices("dkd", target)
        logits = _logits.pair(student.logits, teacher.logits, standardize=self.standardize)
        grown = min((context.epoch + 1) / self.warmup, 1.0) if context is not None else 1.0
        return {
            "tckd": grown * self.alpha * _target_divergence(*logits, target, self.temperature),
            "nckd": grown * self.beta * _others_divergence(*logits, target, self.temperature),
        }


def _target_divergence(student: Tensor, teacher: Tensor, target: Tensor, temperature: float) -> Tensor:
    """TCKD: T^2 * KL between [p_y, 1 - p_y] of both, mean over the batch."""
    log_student, log_teacher = (_log_binary(logits / temperature, target) for logits in (student, teacher))
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


def _log_binary(logits: Tensor, target: Tensor) -> Tensor:
    """[log p_y, log(1 - p_y)] `[B, 2]`, exact also where p_y rounds to 0 or 1."""
    chosen = logits.gather(1, target.unsqueeze(1))
    others = _logits.without_target(logits, target).logsumexp(dim=1, keepdim=True)
    return F.log_softmax(torch.cat([chosen, others], dim=1), dim=1)


def _others_divergence(student: Tensor, teacher: Tensor, target: Tensor, temperature: float) -> Tensor:
    """NCKD: T^2 * KL between the softmaxes over the classes other than the target, mean over the batch."""
    return _logits.divergence(
        _logits.without_target(student, target), _logits.without_target(teacher, target), temperature
    )
