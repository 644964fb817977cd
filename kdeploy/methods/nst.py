"""Neuron selectivity transfer: the distribution of the channels' spatial patterns."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from kdeploy.methods._features import one_size, shape_pairs, stage_pairs, unit
from kdeploy.methods._logits import full_precision
from kdeploy.methods.base import Context, Method, Needs, Outputs, Shapes


class NST(Method):
    """Huang, Wang: "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer", arXiv 1707.01219 (2017).

    For each stage, with feature maps `[B, C_s, H, W]` and `[B, C_t, H, W]`: u_i is the student's channel i of a sample
    as a vector over the H*W positions divided by its L2 norm, v_j the teacher's. With the kernel k(x, y) = <x, y>^2,

        L = mean over i, i' of k(u_i, u_i') + mean over j, j' of k(v_j, v_j') - 2 * mean over i, j of k(u_i, v_j)

    the squared maximum mean discrepancy between the two sets of channels, averaged over the batch and summed over the
    stages. The same number: |(1/C_s) sum over i of u_i u_i^T - (1/C_t) sum over j of v_j v_j^T|_F^2. It is 0 or above.
    Where sizes differ, the larger map is average-pooled to the smaller. Numbers of channels are free. Adapters and
    labels: none.

    This is the form behind the CIFAR-100 tables: all stages, as the networks give them, default weight 50 beside
    cross-entropy at 1. The authors' ImageNet code takes the last stage alone, before its ReLU, and leaves out the
    teacher's own term, which is constant. The kernel does not see a channel's sign. A channel that is zero everywhere
    counts as similar to none, itself included, and gets no gradient (float16 gives NaN in the published code).
    Computed in at least float32 by products of C_s x C_t, without the B * C_s * C_t * H * W numbers of that code.
    No options.
    """

    paper: ClassVar[str] = "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer, arXiv 1707.01219"
    year: ClassVar[int] = 2017
    formula: ClassVar[str] = "sum over stages of the squared MMD between the channels' unit maps, kernel <x, y>^2"
    needs: ClassVar[Needs] = Needs(features="all")

    @property
    def default_weight(self) -> float:
        return 50.0

    def build(self, student: Shapes, teacher: Shapes) -> None:
        """No adapters: raises UserError where the stages do not pair."""
        shape_pairs("nst", student, teacher)

    def terms(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        pairs = stage_pairs("nst", student, teacher)
        with full_precision(student.logits):
            return {f"stage{number}": _discrepancy(*one_size(*pair)) for number, pair in enumerate(pairs, start=1)}


def _discrepancy(student: Tensor, teacher: Tensor) -> Tensor:
    """The squared MMD of the channels of two maps `[B, C, H, W]` of one size, mean over the batch."""
    ours, theirs = (unit(maps.flatten(start_dim=2), dim=2) for maps in (student, teacher))
    return _similarity(ours, ours) + _similarity(theirs, theirs) - 2 * _similarity(ours, theirs)


def _similarity(some: Tensor, others: Tensor) -> Tensor:
    """The mean of <x, y>^2 over all pairs of unit vectors of `[B, C, N]` and `[B, C', N]`, and over the batch."""
    return (some @ others.transpose(1, 2)).square().mean()
