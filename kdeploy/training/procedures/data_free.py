"""Data-free: a student learns on images made from its trained teacher, and no training image is opened."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kdeploy import artifacts, events
from kdeploy.errors import UserError
from kdeploy.loading import NoiseBatches, TensorSet, TrainBatches, Views
from kdeploy.loading.seeds import seed_of, seeded
from kdeploy.models.classifier import Classifier
from kdeploy.models.taps import find_classifier
from kdeploy.recipe.procedures.data_free import DataFreeOptions
from kdeploy.recipe.schema import Recipe, TrainSpec
from kdeploy.sources import synthesised
from kdeploy.training import loop
from kdeploy.training.batchnorm import batch_statistics, require_batch_norms
from kdeploy.training.objective import Objective
from kdeploy.training.procedures.base import Job, Workshop
from kdeploy.training.synthesis.dafl import Rival, Said
from kdeploy.training.synthesis.deepinversion import Inversion, Pixels
from kdeploy.training.synthesis.fast import Fast, Pool, Rounds
from kdeploy.training.synthesis.generator import Generator
from kdeploy.training.views import View
from kdeploy.training.without_images import (
    NOTES,
    called_by,
    leave_images,
    methods_of,
    student_jobs,
    surveyed,
    taught,
    teacher_of,
    to_uint8,
)

WHAT = "synthesised images"


class DataFree:
    """Images are made that the teacher takes for what it was trained on, and the student learns on these.

    `synthesis: deepinversion` (CVPR 2020) optimises the pixels of all images first, a training of its own for each
    batch of them, and then trains the student on them as on any data set, `data.augment` included. `dafl` (ICCV 2019)
    trains a generator and the student together, each batch new. `fast` (AAAI 2022) trains a generator that is quickly
    adapted to each new batch, keeps the batches in a pool, and trains the student on that between them, `data.augment`
    included. The classes in `training/synthesis/` say what each minimises and where it differs from its paper.

    The student minimises the recipe's methods alone; the classes that the teacher names stand where labels would. The
    teacher is in evaluation mode and never changed. A pool, a generator and the pixels are part of a checkpoint, and
    what is drawn derives from (seed, step), so that a run that was killed goes on as if nothing had happened. How long
    it takes is set in steps, never by the clock: the same recipe gives the same weights on a slower machine.

    The figures of the authors choose the best epoch by test images; here nothing is chosen by them.
    """

    def jobs(self, recipe: Recipe) -> list[Job]:
        return student_jobs(recipe, _student)


PROCEDURE = DataFree()


def _student(shop: Workshop) -> None:
    if shop.processes.count > 1:
        raise UserError("The procedure data-free makes its images in one process: leave --devices and --nodes out.")
    options = DataFreeOptions.of(shop.recipe)
    teacher = teacher_of(shop)
    if options.synthesis != "dafl":
        require_batch_norms(teacher, "The teacher")
    student = shop.make(shop.recipe.student, shop.recipe.seed)
    _WAYS[options.synthesis](shop, options, teacher, student)
    _note(shop, options)


def _deepinversion(shop: Workshop, options: DataFreeOptions, teacher: Classifier, student: Classifier) -> None:
    """All images first, then the student on them."""
    recipe = shop.recipe
    pixels = _inverted(shop, options, teacher)
    leave_images(shop, pixels, teacher, WHAT)
    data = TensorSet(pixels.to(shop.device), called_by(teacher, pixels, shop).to(shop.device))
    views = Views(data, recipe.data.augment, seed=recipe.seed, mean=_colour(shop))
    batches = TrainBatches(views, batch=recipe.distill.batch, seed=recipe.seed)
    objective = taught(shop, teacher, student)
    shop.train("student", student, objective, recipe.distill, recipe.seed, network_spec=recipe.student, batches=batches)


def _inverted(shop: Workshop, options: DataFreeOptions, teacher: Classifier) -> Tensor:
    """Batch by batch, each a training of its own, whose checkpoint lies beside the student's: uint8 `[N, C, H, W]`."""
    distill, seed, told = shop.recipe.distill, shop.recipe.seed, options.deepinversion
    assert told is not None
    spec = TrainSpec(
        epochs=1,
        batch=distill.batch,
        optimizer="adam",
        lr=told.lr,
        weight_decay=0,
        schedule="constant",
        precision=distill.precision,
        checkpoint_steps=distill.checkpoint_steps,
    )
    decided = shop.decide(spec)
    mean, std = teacher.mean.flatten().tolist(), teacher.std.flatten().tolist()
    begun = _latents(shop, _shape(shop), 1)
    steps = _latents(shop, (1, 1, 1), told.iterations)  # what is in them is not looked at
    made: list[Tensor] = []
    count = -(-options.images // distill.batch)
    for number in range(count):
        chance = seeded(seed, "classes", number)
        classes = torch.randint(0, len(shop.splits.classes), (distill.batch,), generator=chance)
        pixels = Pixels(begun.drawn(number, 0), mean, std)
        loop.fit(
            pixels,
            Inversion(teacher, classes, told, seed=seed_of(seed, number)),
            train=steps,
            validation=None,
            spec=spec,
            setup=decided,
            folder=shop.networks / "student" / f"images-{number + 1}",
            label=f"images {number + 1} of {count}",
        )
        with torch.no_grad():
            made.append(to_uint8(pixels(pixels.values)).cpu().contiguous())
    return torch.cat(made)[: options.images]


def _dafl(shop: Workshop, options: DataFreeOptions, teacher: Classifier, student: Classifier) -> None:
    """A generator and the student together."""
    told = options.dafl
    assert told is not None
    generator = Generator(told.latent, _shape(shop))
    said = Said()
    methods = methods_of(shop.recipe)
    _, theirs = surveyed(shop, teacher, student, methods)
    objective = Rival(
        generator,
        teacher,
        taught(shop, teacher, student, teaching=said),
        told,
        view=View(teacher, theirs, [method.needs for method in methods], "teacher"),
        said=said,
        classifier=find_classifier(teacher.network, _shape(shop)).path,
    )
    latents = _latents(shop, (told.latent, 1, 1), told.batches)
    _train_together(shop, student, objective, latents)
    generator.eval()
    made = []
    with torch.no_grad(), batch_statistics(generator):
        for number in range(-(-options.images // shop.recipe.distill.batch)):
            made.append(to_uint8(generator(latents.drawn(-1, number).to(shop.device))))
    leave_images(shop, torch.cat(made)[: options.images], teacher, WHAT)


def _fast(shop: Workshop, options: DataFreeOptions, teacher: Classifier, student: Classifier) -> None:
    """Rounds of new images, and the student on the pool between them."""
    recipe, distill, told = shop.recipe, shop.recipe.distill, options.fast
    assert told is not None
    rounds = Rounds(told.warmup, told.every)
    pool = Pool(options.images, _shape(shop))
    objective = Fast(
        Generator(told.latent, _shape(shop)),
        teacher,
        student,
        taught(shop, teacher, student),
        pool,
        rounds=rounds,
        told=told,
        classes=len(shop.splits.classes),
        augment=recipe.data.augment,
        seed=recipe.seed,
        mean=_colour(shop),
    )
    _train_together(shop, student, objective, _latents(shop, (told.latent, 1, 1), told.batches))
    filled = pool.filled(rounds.before(distill.epochs * told.batches) * distill.batch)
    mixed = torch.randperm(filled, generator=seeded(recipe.seed, "mixed"))  # early images are worse than late ones
    leave_images(shop, pool.images[:filled].cpu()[mixed], teacher, WHAT)


_WAYS: dict[str, Callable[[Workshop, DataFreeOptions, Classifier, Classifier], None]] = {
    "deepinversion": _deepinversion,
    "dafl": _dafl,
    "fast": _fast,
}


def _train_together(shop: Workshop, student: Classifier, objective: Objective, batches: NoiseBatches) -> None:
    """The student, and the generator that is part of its objective."""
    recipe = shop.recipe
    shop.train("student", student, objective, recipe.distill, recipe.seed, network_spec=recipe.student, batches=batches)


def _shape(shop: Workshop) -> tuple[int, int, int]:
    """Channels, height and width of an image."""
    height, width, channels = shop.splits.shape
    return channels, height, width


def _latents(shop: Workshop, shape: tuple[int, int, int], count: int) -> NoiseBatches:
    """Batches of standard noise."""
    return NoiseBatches(shape, count=count, batch=shop.recipe.distill.batch, seed=shop.recipe.seed, device=shop.device)


def _colour(shop: Workshop) -> tuple[float, ...] | None:
    """What cutout paints with, where there is any."""
    return shop.normalize.mean if shop.recipe.data.augment.cutout else None


def _note(shop: Workshop, options: DataFreeOptions) -> None:
    """Say what was made from what, and leave it beside the student."""
    made = synthesised.read(shop.networks.parent)
    counts = torch.bincount(torch.from_numpy(made.images.labels), minlength=len(made.images.classes))
    fewest = int(counts.min())
    notes = [
        f"No training image was opened: the student learnt on images made from the teacher ({options.synthesis}). int8 "
        f"is calibrated on {len(made.images)} synthesised images, and exported networks are compared on them.",
        f"Of these the teacher calls between {fewest} and {int(counts.max())} by one class.",
    ]
    if fewest == 0:
        events.warn("The teacher sees no image of some classes in what was made: a student cannot learn those.")
    figures = {"synthesis": options.synthesis, "images": len(made.images), "teacher_calls": counts.tolist()}
    content = {"schema_version": 1, "notes": notes, "figures": figures}
    artifacts.write_json(shop.networks / "student" / NOTES, content)
