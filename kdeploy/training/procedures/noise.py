"""Noise: a student learns from a trained teacher on Gaussian noise, and no training image is opened."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from kdeploy import artifacts, events
from kdeploy.loading import Batch, NoiseBatches, TrainBatches, Views
from kdeploy.models.classifier import Classifier
from kdeploy.recipe.procedures.noise import NoiseOptions
from kdeploy.recipe.schema import AugmentSpec, Recipe, TrainSpec
from kdeploy.training.batchnorm import batch_statistics, recalibrate, require_batch_norms
from kdeploy.training.evaluate import accuracy, predict
from kdeploy.training.procedures.base import Job, Workshop
from kdeploy.training.without_images import NOTES, leave_images, student_jobs, taught, teacher_of, to_uint8

WHAT = "noise images"
_UNCHANGED = AugmentSpec(crop=0, flip=False)
_NEVER_TRAINED_ON = -1
"""The epoch whose noise is left for calibration."""


class Noise:
    """Raikwar, Mishra: "Discovering and Overcoming Limitations of Noise-engineered Data-free Knowledge Distillation",
    NeurIPS 2022.

    Batches are N(0, 1) in the space that the teacher normalises images to, nothing clamped. With running statistics
    each of its batch norms would shift noise by what images have, layer after layer, until it names one class for all;
    with the statistics of the batch each layer passes on what the next one expects. The student is trained with batch
    statistics as any network is. The paper's loss is soft cross-entropy at temperature 1, whose gradient is that of
    `method: kd` with `options: {temperature: 1}` and `weight: 1`; any other method that needs no labels of its own
    takes its place, and data.augment is not used.

    The statistics that the student has gathered are those of noise, and so its accuracy comes in three forms:

    - with batch statistics: test images in batches, each normalised by itself. What the paper reports, and what an
      engine that is given one image cannot do.
    - with recalibrated statistics: measured anew on some unlabelled test images, then as plain eval. Both of these have
      seen test images, without labels: they are transductive.
    - as plain eval(), with the statistics of noise: nothing but noise was ever seen.

    Plain eval is what is deployed, unless `deploy: recalibrated` says that unlabelled images of the data may be seen.
    The authors choose the learning rate and the figure they report by test images; here nothing is chosen by them.
    """

    def jobs(self, recipe: Recipe) -> list[Job]:
        return student_jobs(recipe, _student, "augment")


PROCEDURE = Noise()


def _student(shop: Workshop) -> None:
    recipe, options = shop.recipe, NoiseOptions.of(shop.recipe)
    teacher = teacher_of(shop)
    student = shop.make(recipe.student, recipe.seed)
    require_batch_norms(student, f"The student {recipe.student.model}")
    by_batch = options.teacher_statistics == "batch"
    if by_batch:
        require_batch_norms(teacher, "The teacher")
    batches = _batches(shop, teacher, options)
    leave_images(shop, _noise_images(batches, options.images), teacher, WHAT, by_batch=by_batch)
    objective = taught(shop, teacher, student, by_batch=by_batch)
    shop.train("student", student, objective, recipe.distill, recipe.seed, network_spec=recipe.student, batches=batches)
    scores, recalibrated = _measured(shop, student, options)
    if options.deploy == "recalibrated":
        shop.save(recalibrated, "student", recipe.student)
        events.warn(
            f"The student's running statistics were measured on {scores.recalibrated_on} unlabelled test images: the "
            "test accuracy of its engines is transductive."
        )
    if shop.processes.first:
        _note(shop, scores, options)


def _batches(shop: Workshop, teacher: Classifier, options: NoiseOptions) -> NoiseBatches:
    """Images that the teacher's normalisation turns into standard noise."""
    height, width, channels = shop.splits.shape
    return NoiseBatches(
        (channels, height, width),
        count=options.batches,
        batch=shop.recipe.distill.batch,
        seed=shop.recipe.seed,
        mean=teacher.mean.flatten().tolist(),
        std=teacher.std.flatten().tolist(),
        device=shop.device,
        share=shop.processes.share,
    )


def _noise_images(batches: NoiseBatches, count: int) -> Tensor:
    """Noise that nothing is trained on, as 8 bits hold it: uint8 `[count, C, H, W]`."""
    first = batches.drawn(_NEVER_TRAINED_ON, 0)
    more = (batches.drawn(_NEVER_TRAINED_ON, number) for number in range(1, -(-count // len(first))))
    return to_uint8(torch.cat([first, *more])[:count])


@dataclass(frozen=True)
class Scores:
    """Accuracy on all test images, as shares. batch: of each evaluation; recalibrated_on: images."""

    by_batch: float
    batch: int
    recalibrated: float
    recalibrated_on: int
    plain: float


def _measured(shop: Workshop, student: Classifier, options: NoiseOptions) -> tuple[Scores, Classifier]:
    """The three accuracies, and the student with recalibrated statistics."""
    decided = shop.decide(TrainSpec(precision="float32"))
    decided.place(student)

    def score(network: nn.Module) -> float:
        return accuracy(*predict(network, _shuffled(shop, options.evaluation_batch), decided))

    recalibrated = copy.deepcopy(student)
    size = min(options.evaluation_batch, options.recalibration)
    seen = list(islice(_shuffled(shop, size), max(1, options.recalibration // size)))
    recalibrate(recalibrated, seen, decided)
    with batch_statistics(student):
        by_batch = score(student)
    scores = Scores(by_batch, options.evaluation_batch, score(recalibrated), sum(map(len, seen)), score(student))
    return scores, recalibrated


def _shuffled(shop: Workshop, batch: int) -> Iterator[Batch]:
    """All test images in an order of chance: they often come sorted by class, and a batch of one class has statistics
    of its own."""
    seed = shop.recipe.seed
    return TrainBatches(Views(shop.tensors("test"), _UNCHANGED, seed=seed), batch=batch, seed=seed).epoch(0)


def _note(shop: Workshop, scores: Scores, options: NoiseOptions) -> None:
    """Say the three accuracies, each by its name, and leave them beside the student."""
    images = len(shop.splits.test)
    forms = (
        f"{scores.by_batch:.1%} with batch statistics (batches of {scores.batch}), {scores.recalibrated:.1%} with "
        f"statistics recalibrated on {scores.recalibrated_on} unlabelled test images, {scores.plain:.1%} as plain "
        "eval() with the statistics of noise"
    )
    notes = [
        "No training image was opened: the student learnt from Gaussian noise, the teacher's batch norms normalising "
        f"by {options.teacher_statistics} statistics. int8 is calibrated on noise images, and exported networks are "
        "compared on them.",
        f"Accuracy of the student on {images} test images: {forms}. The first two are transductive: they have seen "
        f"test images, without labels. Deployed: {options.deploy}.",
    ]
    events.say(f"student: {forms}; deployed: {options.deploy}")
    figures = {
        "test_samples": images,
        "teacher_statistics": options.teacher_statistics,
        "batch_statistics": {"accuracy": scores.by_batch, "batch": scores.batch, "transductive": True},
        "recalibrated": {"accuracy": scores.recalibrated, "images": scores.recalibrated_on, "transductive": True},
        "plain": {"accuracy": scores.plain, "transductive": False},
        "deployed": options.deploy,
    }
    content = {"schema_version": 1, "notes": notes, "figures": figures}
    artifacts.write_json(shop.networks / "student" / NOTES, content)
