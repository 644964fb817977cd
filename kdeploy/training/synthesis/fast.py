"""Fast data-free distillation: a generator that needs a few steps only for each batch of new images."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdeploy.loading import NO_CLASS, Batch, TensorSet, Views
from kdeploy.loading.seeds import seeded
from kdeploy.methods.base import Context
from kdeploy.models.classifier import Classifier
from kdeploy.recipe.procedures.data_free import FastOptions
from kdeploy.recipe.schema import AugmentSpec
from kdeploy.training.objective import Distillation, Objective, Step
from kdeploy.training.synthesis.generator import Generator
from kdeploy.training.synthesis.losses import InputStatistics, adversarial, one_hot

_BETAS = (0.5, 0.999)
_MOMENTUM = 0.9
FIGURES = ("bn", "oh", "adversarial")


@dataclass(frozen=True)
class Rounds:
    """When images are made: `warmup` rounds first, then one before every `every` steps of the student."""

    warmup: int
    every: int

    def makes(self, step: int) -> bool:
        """Whether step `step` of the training, which counts from 0, makes images."""
        return step < self.warmup or (step - self.warmup) % (self.every + 1) == 0

    def before(self, step: int) -> int:
        """How many rounds there were before this step."""
        return step if step < self.warmup else self.warmup + -(-(step - self.warmup) // (self.every + 1))


class Pool(nn.Module):
    """The images made so far, the oldest replaced: uint8 `[capacity, C, H, W]`, part of a checkpoint."""

    images: Tensor

    def __init__(self, capacity: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros((capacity, *shape), dtype=torch.uint8))

    def put(self, images: Tensor, first: int) -> None:
        """Write images `[B, C, H, W]` in [0, 1] as numbers `first` and on of all that were ever made."""
        places = torch.arange(first, first + len(images), device=images.device) % len(self.images)
        self.images[places] = images.clamp(0, 1).mul(255).round().to(torch.uint8)

    def filled(self, made: int) -> int:
        """How many of its places hold an image, of so many ever made."""
        return min(made, len(self.images))


@dataclass(frozen=True)
class Made:
    """A batch of images in [0, 1], the teacher's logits and the weighted terms of it, and the generator's gradients."""

    images: Tensor
    logits: Tensor
    figures: Tensor
    gradients: list[Tensor]


class Fast(Objective):
    """Fang, Mo, Wang, Song, Bei, Zhang, Song: "Up to 100x Faster Data-Free Knowledge Distillation", AAAI 2022,
    arXiv 2112.06253.

    A round copies the generator and lets the copy and a batch of latents take a few Adam steps on bn * BN + oh * OH +
    adversarial * ADV (`losses.py`; BN with a mean over rounds of momentum 0.9; no ADV in the warm-up). The best images
    of these steps go into the pool. The sum of the copy's gradients is then the generator's own gradient (first-order
    MAML), so that it comes to begin where a few steps suffice. Between rounds the student learns from the pool.

    The few steps inside of a round are taken here and not by the loop: they are the inner problem of the
    meta-learning, whose outcome is this objective's value. The step of the generator is the loop's, by one Adam with
    the student's rate; the authors' Adam has k times the inner rate for it, and their student SGD at 0.2. They draw
    the generator's first layer anew after 140 epochs, which is left out.

    A step that makes images has the loss 0, whose gradient is the generator's; its accuracy is the share of new images
    in which the teacher sees what it should. The terms bn, oh and adversarial are those of the last round.

    told: steps, rates and weights; student: the network in training, for ADV; classes: how many there are; augment:
    what is done to images of the pool, with the colour `mean` for cutout.
    """

    figures: Tensor

    def __init__(
        self,
        generator: Generator,
        teacher: Classifier,
        student: Classifier,
        distillation: Distillation,
        pool: Pool,
        *,
        rounds: Rounds,
        told: FastOptions,
        classes: int,
        augment: AugmentSpec,
        seed: int,
        mean: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__()
        self.generator = generator
        self.distillation = distillation
        self.pool = pool
        self.statistics = InputStatistics(teacher, _MOMENTUM)
        self.register_buffer("figures", torch.zeros(len(FIGURES)))
        self._others = (teacher, student)  # in a tuple: no part of what is trained, moved or saved here
        self._rounds = rounds
        self._told = told
        self._classes = classes
        self._augment = augment
        self._seed = seed
        self._mean = mean

    def forward(self, network: nn.Module, batch: Batch, context: Context) -> Step:
        if self._rounds.makes(context.step):
            return self._round(batch, self._rounds.before(context.step))
        step: Step = self.distillation(network, self._from_pool(batch, context.step), context)
        return Step(step.loss, {**step.terms, **self._terms()}, step.logits, step.labels)

    def _terms(self) -> dict[str, Tensor]:
        return dict(zip(FIGURES, self.figures.clone(), strict=True))

    def _from_pool(self, batch: Batch, step: int) -> Batch:
        """As many images of the pool as the batch has, drawn and changed by chance from (seed, step)."""
        filled = self.pool.filled(self._rounds.before(step) * len(batch))
        index = torch.randint(0, filled, (len(batch),), generator=seeded(self._seed, "pool", step))
        placed = index.to(self.pool.images.device)
        none = torch.full((len(self.pool.images),), NO_CLASS, device=placed.device)
        views = Views(TensorSet(self.pool.images, none), self._augment, seed=self._seed, mean=self._mean)
        return Batch(views.augmented(self.pool.images[placed], step, index), none[placed], placed)

    def _round(self, batch: Batch, number: int) -> Step:
        """Make a batch of images of the latents in `batch`, and hand the generator its gradient."""
        teacher, student = self._others
        chance = seeded(self._seed, "classes", number)
        classes = torch.randint(0, self._classes, (len(batch),), generator=chance).to(batch.images.device)
        student.eval()  # its batch norms are to keep what they gathered from the pool
        made = self._made(teacher, student, batch.images, classes, opposed=number >= self._rounds.warmup)
        student.train()
        self.pool.put(made.images, number * len(batch))
        self.figures.copy_(made.figures)
        inner = torch.stack(
            [(own * given).sum() for own, given in zip(self.generator.parameters(), made.gradients, strict=True)]
        ).sum()
        return Step(inner - inner.detach(), self._terms(), made.logits, classes)

    def _made(
        self, teacher: Classifier, student: Classifier, latents: Tensor, classes: Tensor, *, opposed: bool
    ) -> Made:
        """The few steps of a copy of the generator, together with the latents."""
        told = self._told
        generator, latents = copy.deepcopy(self.generator), latents.clone().requires_grad_()
        trained = [*generator.parameters(), latents]
        rates = [{"params": trained[:-1], "lr": told.lr}, {"params": [latents], "lr": told.latent_lr}]
        optimizer = torch.optim.Adam(rates, betas=_BETAS)
        gradients = [torch.zeros_like(each) for each in trained[:-1]]  # summed up in place over the steps
        best: Made | None = None
        lowest = torch.tensor(float("inf"))
        for _ in range(told.iterations):
            images = generator(latents)
            with self.statistics.watching():
                logits = teacher(images)
            terms = [self.statistics.term(), one_hot(logits, classes), images.new_zeros(())]
            if opposed:
                terms[2] = adversarial(student(images), logits)
            figures = torch.stack([getattr(told, name) * term for name, term in zip(FIGURES, terms, strict=True)])
            loss = figures.sum()
            optimizer.zero_grad()
            torch.autograd.backward([loss], inputs=trained)
            for total, each in zip(gradients, trained, strict=False):
                assert each.grad is not None
                total += each.grad
            optimizer.step()
            if best is None or loss.item() < lowest:
                lowest = loss.detach()
                best = Made(images.detach().clone(), logits.detach(), figures.detach(), gradients)
        self.statistics.remember()
        assert best is not None
        return best
