"""Images moved to where teachers disagree: input perturbations for distilling an ensemble.

Nam, Yoon, Lee, Lee: "Diversity Matters When Learning From Ensembles", NeurIPS 2021, arXiv 2110.14149, which takes
output diversified sampling (ODS) from Tashiro, Song, Ermon, NeurIPS 2020, arXiv 2003.06878.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from kdeploy.loading import Batch
from kdeploy.loading.seeds import seeded

Kind = Literal["ods", "confods", "gaussian"]
_PIXEL = 1 / 255


class Perturbation:
    """x + eps, clamped to [0, 1], for the images x of a batch; in pixels, before any network normalises them.

    ods: eps = step / 255 * sqrt(D) * g / ||g||, where g is the gradient of sum_c w_c p_c, with p the probabilities of
    ONE teacher, drawn for the batch, and w from U(-1, 1), drawn for each image and class; D is the number of values of
    an image, so that a value moves by step / 255, root mean square. confods: the same times the largest p_c, a smaller
    step where the teacher is unsure. gaussian: eps = step / 255 * N(0, 1), what the paper compares with.

    What is drawn depends on (seed, step of the training) alone, on the CPU, so that it is the same after an
    interruption, on every device, and for any number of processes: each has its part of what the whole batch draws.

    Args:
        teachers: from images in [0, 1] to logits `[B, classes]`; frozen, in evaluation mode.
        temperature: of p.
        rank: which of the processes this is that have a part of each batch.
    """

    def __init__(
        self,
        kind: Kind,
        teachers: Sequence[nn.Module],
        *,
        step: float,
        temperature: float,
        seed: int,
        rank: int = 0,
    ) -> None:
        self._kind = kind
        self._teachers = tuple(teachers)  # in no module: neither optimiser nor checkpoint hold them
        self._step = step
        self._temperature = temperature
        self._seed = seed
        self._rank = rank

    def __call__(self, batch: Batch, step: int) -> Tensor:
        """The images of `batch`, `[B, C, H, W]`, perturbed; step: of the training, from 0."""
        generator = seeded(self._seed, "perturbation", step)
        size = self._step * _PIXEL
        if self._kind == "gaussian":
            noise = self._own(batch, torch.randn(_whole(batch), *batch.images.shape[1:], generator=generator))
            return (batch.images + size * noise).clamp(0, 1)
        teacher = self._teachers[int(torch.randint(len(self._teachers), (), generator=generator))]

        def weights(classes: int) -> Tensor:
            return self._own(batch, 2 * torch.rand(_whole(batch), classes, generator=generator) - 1)

        direction, confidence = diversified(teacher, batch.images, weights, temperature=self._temperature)
        if self._kind == "confods":
            direction = direction * confidence.to(direction.dtype)[:, None, None, None]
        return (batch.images + size * direction).clamp(0, 1)

    def _own(self, batch: Batch, drawn: Tensor) -> Tensor:
        """The rows of this process's part, of what was drawn for the whole batch, on its device."""
        before = sum(batch.sizes[: self._rank])
        return drawn[before : before + len(batch)].to(batch.images)


def diversified(
    teacher: Callable[[Tensor], Tensor], images: Tensor, weights: Callable[[int], Tensor], *, temperature: float
) -> tuple[Tensor, Tensor]:
    """The direction of ODS `[B, C, H, W]`, each image's of norm sqrt(C * H * W), and the largest probability `[B]`.

    weights: from the number of classes to w `[B, classes]`.

    A teacher that is all but certain has gradients far below 1e-20, whose squares float32 does not know, and the
    largest probability rounds to 1, which leaves its own part of the gradient at 0. So w is taken relative to that of
    the likeliest class, which changes nothing, because probabilities add up to 1, and each gradient is brought to size
    1 before its norm is taken. An image without any gradient stays as it is.
    """
    with torch.enable_grad():
        pixels = images.detach().requires_grad_()
        logits = teacher(pixels)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        probabilities = (logits / temperature).softmax(dim=1)
        confidence, likeliest = probabilities.detach().max(dim=1)
        drawn = weights(logits.shape[1]).to(probabilities.dtype)
        relative = drawn - drawn.gather(1, likeliest[:, None])
        (gradient,) = torch.autograd.grad((relative * probabilities).sum(), pixels)
    largest = gradient.abs().amax(dim=(1, 2, 3), keepdim=True)
    unit = gradient / largest.clamp_min(torch.finfo(gradient.dtype).tiny)
    norm = torch.linalg.vector_norm(unit, dim=(1, 2, 3), keepdim=True)
    return unit * (math.sqrt(images[0].numel()) / norm.clamp_min(1)), confidence


def _whole(batch: Batch) -> int:
    """How many images the whole batch has, of which this is one process's part."""
    return sum(batch.sizes) or len(batch)
