"""Contrastive representation distillation."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from kdeploy.errors import UserError
from kdeploy.methods import _options
from kdeploy.methods._features import embeddings, unit
from kdeploy.methods._logits import full_precision
from kdeploy.methods._relations import embedding_sizes
from kdeploy.methods.base import Context, Method, Needs, Outputs, Shapes

_EPSILON = 1e-7
_PRIME = 1_000_003  # neighbouring runs' seeds do not meet in neighbouring steps


class CRD(Method):
    """Tian, Krishnan, Isola: "Contrastive Representation Distillation", ICLR 2020, arXiv 1910.10699.

    The pooled embeddings of both networks go through a linear layer each (both are trained) to `dimension` values of
    L2 norm 1: v_s, v_t `[B, d]`. A memory for each network holds such a vector for each of the N training samples:
    m_s, m_t `[N, d]`, at first uniform in +-1 / sqrt(d / 3). For sample b, with k = 0 its own index and k = 1 … K
    indices of samples of other classes, drawn anew in each step:

        x_s[b, k] = exp(m_t[k] . v_s[b] / T) / Z_s       x_t[b, k] = exp(m_s[k] . v_t[b] / T) / Z_t
        NCE(x) = -1/B * sum over b of  ( log(x[b, 0] / (x[b, 0] + K/N + eps))
                                         + sum over k >= 1 of log(K/N / (x[b, k] + K/N + eps)) ),   eps = 1e-7
        L = NCE(x_s) + NCE(x_t)

    Z_s and Z_t are constants: N times the mean of exp(...) in the first batch of training. After scoring, and without
    gradient, the memory of the batch's samples becomes unit(momentum * m + (1 - momentum) * v). Memory and Z are
    buffers, saved with the method; they change in training mode only. A sample's negatives are all different where
    there are K of other classes, and drawn with replacement where there are fewer, as in the authors' code; they
    depend on torch's seed when `prepare` was called, which is saved too, and on the step alone.

    The teacher's embedding gets no gradient, its linear layer does. A vector of norm 0 is left at 0. It needs
    `build` and `prepare` first, and `Context.index`. Similarities are computed with the whole memory, `[B, N]`, and
    then picked: never more memory than gathering `[B, K, d]` while N < K * d.

    Options
    -------
    negatives: K. 16384 as in the tables.
    dimension: d, values a vector. 128 as in the tables.
    temperature: T, no unit. 0.07 as in the tables.
    momentum: share of the old memory that stays, no unit. 0.5 as in the tables.
    The published weight is 0.8, beside cross-entropy; "CRD+KD" adds kd with weight 1.
    """

    paper: ClassVar[str] = "Contrastive Representation Distillation, ICLR 2020, arXiv 1910.10699"
    year: ClassVar[int] = 2020
    formula: ClassVar[str] = "NCE of v_s against the teacher's memory + NCE of v_t against the student's memory"
    needs: ClassVar[Needs] = Needs(embedding=True, index=True, training_labels=True, whole_batch="must")

    labels: Tensor
    order: Tensor
    class_starts: Tensor
    class_sizes: Tensor
    student_memory: Tensor
    teacher_memory: Tensor
    normalizers: Tensor

    def __init__(
        self, *, negatives: int = 16384, dimension: int = 128, temperature: float = 0.07, momentum: float = 0.5
    ) -> None:
        super().__init__()
        _options.whole("crd", least=1, negatives=negatives, dimension=dimension)
        _options.positive("crd", temperature=temperature)
        _options.share("crd", momentum=momentum)
        self.negatives = negatives
        self.dimension = dimension
        self.temperature = temperature
        self.momentum = momentum
        self.student_embed: nn.Linear | None = None
        self.teacher_embed: nn.Linear | None = None
        self.seed: int | None = None
        self.largest_class = 0

    @property
    def default_weight(self) -> float:
        return 0.8

    def build(self, student: Shapes, teacher: Shapes) -> None:
        ours, theirs = embedding_sizes("crd", student, teacher)
        self.student_embed = nn.Linear(ours, self.dimension)
        self.teacher_embed = nn.Linear(theirs, self.dimension)

    def prepare(self, labels: Tensor) -> None:
        """Make the memory for the training set's labels `[N]`, and remember which samples are of other classes."""
        sizes = labels.bincount()
        if labels.ndim != 1 or sizes.count_nonzero() < 2:
            raise UserError("crd takes its negatives from other classes: the training set must have two or more.")
        self.seed = torch.initial_seed() & 0x7FFFFFFFFFFFFFFF
        self.largest_class = int(sizes.max())
        self.register_buffer("labels", labels.clone(), persistent=False)
        self.register_buffer("order", labels.argsort(stable=True), persistent=False)
        self.register_buffer("class_sizes", sizes, persistent=False)
        self.register_buffer("class_starts", sizes.cumsum(0) - sizes, persistent=False)
        bound = (self.dimension / 3) ** -0.5
        for name in ("student_memory", "teacher_memory"):
            start = torch.empty(len(labels), self.dimension, device=labels.device).uniform_(-bound, bound)
            self.register_buffer(name, start)
        self.register_buffer("normalizers", torch.zeros(2, device=labels.device))  # Z_s, Z_t; 0: not set yet

    def get_extra_state(self) -> Tensor:
        """The seed of the negatives, part of a checkpoint."""
        return torch.tensor(-1 if self.seed is None else self.seed)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the seed of a checkpoint, so that what follows it draws the same negatives."""
        if state >= 0:
            self.seed = int(state)

    def terms(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        if self.student_embed is None or self.teacher_embed is None or self.seed is None:
            raise ValueError("crd needs build and prepare before its first loss")
        if context is None or context.index is None:
            raise ValueError("crd needs Context.index, the samples' places in the training set")
        ours, theirs = embeddings("crd", student, teacher)
        picked = self._samples(context.index, self.seed + context.step * _PRIME)
        with full_precision(ours):
            ours, theirs = unit(self.student_embed(ours)), unit(self.teacher_embed(theirs))
            similar = torch.stack([ours @ self.teacher_memory.T, theirs @ self.student_memory.T]) / self.temperature
        scores = similar.gather(2, picked.expand(2, -1, -1)).exp()
        scores = scores / self._normalizers(scores.detach())[:, None, None]
        if self.training:
            self._remember(context.index, ours.detach(), theirs.detach())
        samples = len(self.labels)
        return {
            "crd/student": noise_contrastive(scores[0], samples),
            "crd/teacher": noise_contrastive(scores[1], samples),
        }

    def _samples(self, index: Tensor, seed: int) -> Tensor:
        """`[B, 1 + K]`: each sample's own index, then those of its negatives."""
        generator = torch.Generator(index.device).manual_seed(seed % 2**63)
        own = self.labels[index]
        samples = len(self.labels)
        if self.negatives <= samples - self.largest_class:
            keys = torch.rand((len(index), samples), generator=generator, device=index.device)
            keys.masked_fill_(own[:, None] == self.labels, 2.0)
            others = keys.topk(self.negatives, dim=1, largest=False, sorted=False).indices
        else:
            # Sorted by class, the others of a class are all places but its own, which are one block.
            sizes, starts = self.class_sizes[own, None], self.class_starts[own, None]
            size = (len(index), self.negatives)
            place = torch.randint(2**62, size, generator=generator, device=index.device) % (samples - sizes)
            others = self.order[place + torch.where(place >= starts, sizes, 0)]
        return torch.cat([index[:, None], others], dim=1)

    def _normalizers(self, exponentials: Tensor) -> Tensor:
        """Z_s and Z_t `[2]`, set from `[2, B, 1 + K]` where they are not set yet."""
        fresh = exponentials.mean(dim=(1, 2)) * len(self.labels)
        chosen = torch.where(self.normalizers > 0, self.normalizers, fresh)
        if self.training:
            self.normalizers.copy_(chosen)
        return chosen

    @torch.no_grad()
    def _remember(self, index: Tensor, ours: Tensor, theirs: Tensor) -> None:
        for name, vectors in (("student_memory", ours), ("teacher_memory", theirs)):
            memory = self.get_buffer(name)
            mixed = unit(self.momentum * memory[index] + (1 - self.momentum) * vectors)
            # A new tensor: the scores' gradient is computed from the one before.
            setattr(self, name, memory.index_copy(0, index, mixed.to(memory.dtype)))


def noise_contrastive(scores: Tensor, samples: int) -> Tensor:
    """NCE of `[B, 1 + K]`, own sample first, for a training set of so many samples: summed over k, mean over b."""
    noise = (scores.shape[1] - 1) / samples
    own, others = scores[:, :1], scores[:, 1:]
    logs = [(own / (own + noise + _EPSILON)).log(), (noise / (others + noise + _EPSILON)).log()]
    return -torch.cat(logs, dim=1).sum(dim=1).mean()
