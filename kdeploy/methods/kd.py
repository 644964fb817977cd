"""Knowledge distillation on logits."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from kdeploy.methods import _logits, _options
from kdeploy.methods.base import Context, Method, Outputs


class KD(Method):
    """Hinton, Vinyals, Dean: "Distilling the Knowledge in a Neural Network", arXiv 1503.02531 (2015).

    With student logits z_s and teacher logits z_t, both `[B, C]`, and p^T = softmax(z / T):

        L = T^2 * (1/B) * sum over b, c of  p_t^T * (log p_t^T - log p_s^T)

    that is the Kullback-Leibler divergence, teacher first, summed over classes and averaged over the batch,
    times T^2, which keeps the gradient's size independent of T. No labels are needed. The teacher gets no
    gradient. In half precision the softmax is taken in float32.

    With `standardize`, both logits are first replaced by (z - mean) / (std + 1e-7) of their own row, std with
    C - 1 in the denominator (Sun et al., "Logit Standardization in Knowledge Distillation", arXiv 2403.01427,
    CVPR 2024). A standardised logit is at most (C - 1) / sqrt(C), the targets are never sharp, and a larger weight
    is a part of that method. A constant row standardises to zeros and gets no gradient.

    Options
    -------
    temperature: T, no unit. Not given, 4 (behind the CIFAR-100 tables of the field), and 2 with `standardize`
        (behind that paper's tables).
    alpha: share of this term in the whole; cross-entropy gets 1 - alpha. 0.9 is behind the same tables. With
        `standardize` the term weighs ten times as much, so that 0.9 gives the published 9 beside 0.1.
    standardize: standardise the logits of both networks.
    """

    paper: ClassVar[str] = "Distilling the Knowledge in a Neural Network, arXiv 1503.02531"
    year: ClassVar[int] = 2015
    formula: ClassVar[str] = "T^2 * KL(softmax(z_t/T) || softmax(z_s/T)), mean over the batch"

    def __init__(self, *, temperature: float | None = None, alpha: float = 0.9, standardize: bool = False) -> None:
        super().__init__()
        self.temperature = temperature if temperature is not None else (2.0 if standardize else 4.0)
        self.alpha = alpha
        self.standardize = standardize
        _options.positive("kd", temperature=self.temperature)
        _options.share("kd", alpha=alpha)

    @property
    def default_weight(self) -> float:
        return 10 * self.alpha if self.standardize else self.alpha

    @property
    def default_cross_entropy(self) -> float:
        return 1.0 - self.alpha

    def terms(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        logits = _logits.pair(student.logits, teacher.logits, standardize=self.standardize)
        return {"kd": _logits.divergence(*logits, self.temperature)}
