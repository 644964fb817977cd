"""Knowledge review: every stage of the student sees the deeper ones too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdeploy.errors import UserError
from kdeploy.methods import _options
from kdeploy.methods._features import shape_pairs, stage_pairs
from kdeploy.methods._logits import at_least_float32
from kdeploy.methods._relations import embedding_sizes
from kdeploy.methods.base import Context, Method, Needs, Outputs, Shapes
from kdeploy.models.layers import BatchNorm

_WIDEST = 512
_POOLS = (4, 2, 1)

Shape = tuple[int, int, int]


class ReviewKD(Method):
    """Chen, Liu, Zhao, Jia: "Distilling Knowledge via Knowledge Review", CVPR 2021, arXiv 2104.09044.

    Levels are the stages, shallow to deep, and the pooled embedding as a 1x1 map `[B, D, 1, 1]`. The student's are
    fused from the deepest to the shallowest; level l takes its map F and what the deeper level passed on, y:

        x = BN(conv1x1(F))                                 to min(512, D_s) channels
        x = a * x + b * resize(y),  a, b `[B, 1, H, W]` = sigmoid(conv1x1([x, resize(y)]))      not at the deepest
        x = resize(x) to the size of the teacher's map; passed on as y
        output of the level = BN(conv3x3(x))               to the teacher's channels

    with nearest-neighbour resizing, convolutions without bias but the one behind the sigmoid, and weights uniform as
    He's with slope 1. The output of each level is held to the teacher's map, before its last ReLU, by

        HCL = (MSE at full size + MSE of both pooled to 4x4 / 2 + to 2x2 / 4 + to 1x1 / 8) / (1 + 1/2 + 1/4 + 1/8)

    MSE is the mean over every element. A pool that is not smaller than the map's height is left out, of the weights
    too: those that are used are 1/2, 1/4, … in order.

        L = min(epoch / warmup, 1) * sum over levels of HCL

    with epochs from 0 as in the authors' code, so that the first epoch has weight 0; without a context the factor is
    1. Not built, each level's map is taken as it is, and embeddings may be left out.

    The published weights depend on the pair: 5 between wide ResNets, ResNet-32x4 to 8x4 and to ShuffleNetV1, 8 to
    ShuffleNetV2, 0.6 for ResNet-56 to 20, 1 for ResNet-110 to 32 and on ImageNet for ResNet-34 to 18. 1 stands here.

    Options
    -------
    warmup: epochs in which the weight rises. 20 on CIFAR-100; ImageNet takes 1. 0: none.
    """

    paper: ClassVar[str] = "Distilling Knowledge via Knowledge Review, CVPR 2021, arXiv 2104.09044"
    year: ClassVar[int] = 2021
    formula: ClassVar[str] = "min(epoch / warmup, 1) * sum over levels of HCL(fused F_s, F_t before its ReLU)"
    needs: ClassVar[Needs] = Needs(features="all", teacher_relu="before", embedding=True)

    def __init__(self, *, warmup: int = 20) -> None:
        super().__init__()
        _options.whole("reviewkd", least=0, warmup=warmup)
        self.warmup = warmup
        self.levels = nn.ModuleList()

    def build(self, student: Shapes, teacher: Shapes) -> None:
        ours, theirs = embedding_sizes("reviewkd", student, teacher)
        width = min(_WIDEST, ours)
        pairs = [*shape_pairs("reviewkd", student, teacher), ((ours, 1, 1), (theirs, 1, 1))]
        last = len(pairs) - 1
        self.levels = nn.ModuleList(
            Fusion(*shapes, width=width, deepest=number == last) for number, shapes in enumerate(pairs)
        )

    def terms(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        ours, theirs = zip(*stage_pairs("reviewkd", _with_embedding(student), _with_embedding(teacher)), strict=True)
        factor = 1.0 if context is None or not self.warmup else min(context.epoch / self.warmup, 1.0)
        return {
            f"reviewkd/{number}": factor * hierarchical_loss(*maps)
            for number, maps in enumerate(zip(self._fused(ours), theirs, strict=True), 1)
        }

    def _fused(self, features: Sequence[Tensor]) -> Sequence[Tensor]:
        """The output of each level for the student's maps, shallow to deep."""
        if not self.levels:
            return features
        passed: Tensor | None = None
        outputs: list[Tensor] = []
        for level, level_features in zip(reversed(self.levels), reversed(features), strict=True):
            output, passed = level(level_features, passed)
            outputs.append(at_least_float32(output))
        return outputs[::-1]


def _with_embedding(outputs: Outputs) -> Outputs:
    """The same with the embedding as one more, deepest, map `[B, D, 1, 1]`."""
    if outputs.embedding is None:
        return outputs
    return Outputs(outputs.logits, [*outputs.features, outputs.embedding[:, :, None, None]])


class Fusion(nn.Module):
    """Attention-based fusion of one level, from the student's shape to the teacher's, through `width` channels."""

    def __init__(self, student: Shape, teacher: Shape, *, width: int, deepest: bool) -> None:
        super().__init__()
        self.size = teacher[1:]
        enter = nn.Conv2d(student[0], width, 1, bias=False)
        leave = nn.Conv2d(width, teacher[0], 3, padding=1, bias=False)
        for convolution in (enter, leave):
            nn.init.kaiming_uniform_(convolution.weight, a=1)
        self.enter = nn.Sequential(enter, BatchNorm(width))
        self.attend = None if deepest else nn.Sequential(nn.Conv2d(2 * width, 2, 1), nn.Sigmoid())
        self.leave = nn.Sequential(leave, BatchNorm(teacher[0]))

    def forward(self, features: Tensor, passed: Tensor | None) -> tuple[Tensor, Tensor]:
        """The level's output `[B, C_t, H_t, W_t]`, and what it passes on, `[B, width, H_t, W_t]`."""
        x = self.enter(features)
        if self.attend is not None and passed is not None:
            deeper = F.interpolate(passed, x.shape[2:])
            shares = self.attend(torch.cat([x, deeper], dim=1))
            x = shares[:, :1] * x + shares[:, 1:] * deeper
        if x.shape[2:] != self.size:
            x = F.interpolate(x, self.size)
        return self.leave(x), x


def hierarchical_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """HCL: the mean squared error of two maps `[B, C, H, W]` at full size and of their pools, averaged by weight."""
    if student.shape != teacher.shape:
        raise UserError(
            f"reviewkd was not built, and the student's {list(student.shape[1:])} is not the teacher's "
            f"{list(teacher.shape[1:])} ([C, H, W]): build it, or take at."
        )
    loss, total, weight = F.mse_loss(student, teacher), 1.0, 1.0
    for size in _POOLS:
        if size < student.shape[2]:
            weight /= 2
            total += weight
            ours, theirs = (F.adaptive_avg_pool2d(features, size) for features in (student, teacher))
            loss = loss + weight * F.mse_loss(ours, theirs)
    return loss / total
