"""Normalised knowledge distillation: the target class and the normalised others as soft cross-entropies."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from kdeploy.methods import _logits, _options
from kdeploy.methods.base import Context, Method, Needs, Outputs


class NKD(Method):
    """Yang, Zeng, Li, Zhang, Yuan, Li: "From Knowledge Distillation to Self-Knowledge Distillation: A Unified
    Approach with Normalized Loss and Customized Soft Labels", arXiv 2303.13005 (ICCV 2023).

    With logits z `[B, C]`, labels y `[B]`, p = softmax(z), and q the softmax of z / T over the C - 1 classes other
    than y ("normalised": q sums to 1 on both sides):

        L = - (1/B) * sum over b of  p_t,y * log p_s,y
            - gamma * T^2 * (1/B) * sum over b and c != y of  q_t,c * log q_s,c

    Both are cross-entropies, not divergences: the loss is not 0 where student and teacher agree, and there its
    first part still pulls towards the label. Cross-entropy with the labels has weight 1 beside it, and there is no
    warm-up. The second part has the gradient of gamma times DKD's NCKD.

    The target's column is left out of q, exactly; it is neither lowered by 1000 nor masked (revisions of the
    published code between July and October 2023 had a mask that hid nothing). Finite for any logits; in half
    precision it is taken in float32. With two classes the second part is 0. Labels must be class indices.

    Options
    -------
    temperature: T of the second part, no unit; 1 in the ImageNet configurations, 3 on CIFAR-100.
    gamma: weight of the second part; 1.5 for the ImageNet pairs of CNNs, 1 for DeiT, 3.5 on CIFAR-100.
    """

    paper: ClassVar[str] = "From Knowledge Distillation to Self-Knowledge Distillation, arXiv 2303.13005"
    year: ClassVar[int] = 2023
    formula: ClassVar[str] = "-p_t,y log p_s,y - gamma T^2 sum over c != y of q_t log q_s, mean over the batch"
    needs: ClassVar[Needs] = Needs(labels=True)

    def __init__(self, *, temperature: float = 1.0, gamma: float = 1.5) -> None:
        super().__init__()
        self.temperature = temperature
        self.gamma = gamma
        _options.positive("nkd", temperature=temperature)
        _options.not_negative("nkd", gamma=gamma)

    def terms(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        target = _logits.class_indices("nkd", target)
        logits = _logits.pair(student.logits, teacher.logits)
        log_p_student, log_p_teacher = (
            F.log_softmax(of_one, dim=1).gather(1, target.unsqueeze(1)) for of_one in logits
        )
        log_q_student, log_q_teacher = (
            F.log_softmax(_logits.without_target(of_one, target) / self.temperature, dim=1) for of_one in logits
        )
        others = -(log_q_teacher.exp() * log_q_student).sum(dim=1).mean()
        return {
            "target": -(log_p_teacher.exp() * log_p_student).mean(),
            "others": self.gamma * self.temperature**2 * others,
        }
