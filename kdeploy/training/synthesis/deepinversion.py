"""DeepInversion: images whose pixels are optimised until a teacher takes them for its training images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdeploy.loading import Batch
from kdeploy.loading.seeds import seeded
from kdeploy.methods.base import Context
from kdeploy.models.classifier import Classifier
from kdeploy.recipe.procedures.data_free import DeepInversionOptions
from kdeploy.training.objective import Objective, Step
from kdeploy.training.synthesis.losses import InputStatistics, one_hot, total_variation


class Pixels(nn.Module):
    """A batch of images as what the loop trains: `[B, C, H, W]`, in the space that the teacher normalises to.

    start: its first values; mean, std: the teacher's normalisation, one value a channel.
    """

    low: Tensor
    high: Tensor

    def __init__(self, start: Tensor, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.values = nn.Parameter(start.clone())
        centre, spread = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))
        self.register_buffer("low", -centre / spread, persistent=False)
        self.register_buffer("high", (1 - centre) / spread, persistent=False)

    def forward(self, batch: Tensor) -> Tensor:
        """The images in [0, 1], whatever the batch. What the last step moved outside is put back to the edge first."""
        with torch.no_grad():
            self.values.copy_(self.values.clamp(self.low, self.high))
        return (self.values - self.low) / (self.high - self.low)


class Inversion(Objective):
    """Yin, Molchanov, Alvarez, Li, Mallya, Hoiem, Jha, Kautz: "Dreaming to Distill: Data-free Knowledge Transfer via
    DeepInversion", CVPR 2020, arXiv 1912.08795.

    bn * BN + oh * OH + tv * TV(x) + l2 * |x|_2 (`losses.py`), with x the normalised images, both norms over the whole
    batch. The teacher sees them shifted by up to `jitter` pixels and mirrored, by chance from (seed, step). Images are
    kept inside what eight bits can show, as the authors do for ImageNet. Adaptive DeepInversion, in which images also
    divide teacher and student, is left out: its weight is 0 in the authors' setting for CIFAR-10, and the student comes
    afterwards here.

    classes: int64 `[B]`, what each image should show. told: the weights, and the jitter.
    """

    classes: Tensor

    def __init__(self, teacher: Classifier, classes: Tensor, told: DeepInversionOptions, *, seed: int) -> None:
        super().__init__()
        self._teacher = (teacher,)  # in a tuple: no part of what is trained, moved or saved
        self.register_buffer("classes", classes)
        self.statistics = InputStatistics(teacher)
        self._told = told
        self._seed = seed

    def forward(self, network: nn.Module, batch: Batch, context: Context) -> Step:
        (teacher,) = self._teacher
        images = network(batch.images)
        with self.statistics.watching():
            logits = teacher(self._moved(images, context.step))
        normalised = (images - teacher.mean) / teacher.std
        terms = {
            "bn": self.statistics.term(),
            "oh": one_hot(logits, self.classes),
            "tv": total_variation(normalised),
            "l2": torch.linalg.vector_norm(normalised),
        }
        terms = {name: getattr(self._told, name) * value for name, value in terms.items()}
        return Step(torch.stack(list(terms.values())).sum(), terms, logits, self.classes)

    def _moved(self, images: Tensor, step: int) -> Tensor:
        """The images as they are shown in a step: shifted around their edges, and mirrored with probability 1/2."""
        chance = seeded(self._seed, "jitter", step)
        down, across = torch.randint(-self._told.jitter, self._told.jitter + 1, (2,), generator=chance).tolist()
        shifted = images.roll((down, across), dims=(2, 3))
        return shifted.flip(3) if torch.rand((), generator=chance).item() < 0.5 else shifted
