"""Knowledge distillation on logits."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from kdeploy.errors import UserError
from kdeploy.methods.base import Context, Method, Outputs


class KD(Method):
    """Hinton, Vinyals, Dean: "Distilling the Knowledge in a Neural Network", arXiv 1503.02531 (2015).

    With student logits z_s and teacher logits z_t, both `[B, C]`, and p^T = softmax(z / T):

        L = T^2 * (1/B) * sum over b, c of  p_t^T * (log p_t^T - log p_s^T)

    that is the Kullback-Leibler divergence, teacher first, summed over classes and averaged over the batch,
    times T^2, which keeps the gradient's size independent of T. No labels are needed. The teacher gets no
    gradient. In half precision the softmax is taken in float32.

    Options
    -------
    temperature: T, no unit. 4 is behind the CIFAR-100 tables of the field.
    alpha: share of this term in the whole; cross-entropy gets 1 - alpha. 0.9 is behind the same tables.
    """

    paper: ClassVar[str] = "Distilling the Knowledge in a Neural Network, arXiv 1503.02531"
    year: ClassVar[int] = 2015
    formula: ClassVar[str] = "T^2 * KL(softmax(z_t/T) || softmax(z_s/T)), mean over the batch"

    def __init__(self, *, temperature: float = 4.0, alpha: float = 0.9) -> None:
        super().__init__()
        if temperature <= 0:
            raise UserError(f"kd: temperature must be above 0, not {temperature:g}.")
        if not 0 <= alpha <= 1:
            raise UserError(f"kd: alpha must lie between 0 and 1, not {alpha:g}.")
        self.temperature = temperature
        self.alpha = alpha

    @property
    def default_weight(self) -> float:
        return self.alpha

    @property
    def default_cross_entropy(self) -> float:
        return 1.0 - self.alpha

    def terms(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        return {"kd": divergence(student.logits, teacher.logits, self.temperature)}


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(softmax(teacher/T) || softmax(student/T)) of logits `[B, C]`, mean over the batch."""
    student, teacher = _at_least_float32(student), _at_least_float32(teacher.detach())
    log_student, log_teacher = (F.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
