"""What the procedures without training images share: the teacher, what it teaches, and the images that they leave."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from kdeploy import events
from kdeploy.errors import UserError
from kdeploy.loading import Batch, EvalBatches, TensorSet
from kdeploy.methods.base import Method, Outputs
from kdeploy.models.classifier import Classifier
from kdeploy.recipe.schema import Recipe, TrainSpec
from kdeploy.sources import synthesised
from kdeploy.sources.base import ImageSet
from kdeploy.training.batchnorm import batch_statistics
from kdeploy.training.evaluate import predict
from kdeploy.training.objective import Distillation, Lesson
from kdeploy.training.procedures.base import Job, Workshop, weighted_methods
from kdeploy.training.procedures.offline import teacher_jobs
from kdeploy.training.teaching import Live, Teaching
from kdeploy.training.views import Tapped, View, survey

NOTES = "notes.json"
"""What there is to know of a student, in sentences for the report and in figures."""


class LiveByBatch(Live):
    """The teacher on the images of each batch, its batch norms normalising by that batch."""

    def outputs(self, batch: Batch) -> list[Outputs]:
        with batch_statistics(self.teacher):
            return super().outputs(batch)


def student_jobs(recipe: Recipe, run: Callable[[Workshop], None], *undeciding: str) -> list[Job]:
    """The teacher, and the student by `run`, which leaves images and notes; what of `data` decides nothing, by name."""
    check_methods(recipe)
    inputs = {
        "data": recipe.data.deciding(*undeciding),
        "network": recipe.student.model_dump(mode="json"),
        "distill": recipe.distill.model_dump(mode="json"),
    }
    files = (*synthesised.FILES, f"networks/student/{NOTES}")
    return [*teacher_jobs(recipe, []), Job("student", run, inputs, recipe.seed, ("teacher",), files=files)]


def check_methods(recipe: Recipe) -> None:
    """Raise UserError for a method that needs more than the outputs of teacher and student on a batch."""
    for spec, (method, _) in zip(recipe.distill.methods, weighted_methods(recipe.distill), strict=True):
        needs = method.needs
        if needs.index or needs.training_labels or needs.teacher_classifier or method.phases():
            raise UserError(
                f"{spec.method} needs the training images, their labels or a training before the student's, and the "
                f"procedure {recipe.distill.procedure} has none of these: take kd, dkd, dist, at or another method "
                "without them."
            )


def methods_of(recipe: Recipe) -> list[Method]:
    """The recipe's methods, made anew."""
    return [method for method, _ in weighted_methods(recipe.distill)]


def teacher_of(shop: Workshop) -> Classifier:
    """The finished teacher, frozen, on the device."""
    teacher = shop.load("teacher")
    shop.decide(shop.recipe.distill).place(teacher)
    return teacher


def surveyed(shop: Workshop, teacher: Classifier, student: Classifier, methods: list[Method]) -> tuple[Tapped, Tapped]:
    """Where student and teacher are tapped for these methods."""
    height, width, channels = shop.splits.shape
    return survey(
        student,
        teacher,
        [method.needs for method in methods],
        shape=(channels, height, width),
        classes=len(shop.splits.classes),
        taps=shop.recipe.distill.taps,
    )


def taught(
    shop: Workshop,
    teacher: Classifier,
    student: Classifier,
    *,
    by_batch: bool = False,
    teaching: Teaching | None = None,
) -> Distillation:
    """What the student minimises: the recipe's methods alone, the classes that the teacher names in place of labels.

    by_batch: whether the teacher normalises by the batch. teaching: where what it says comes from; default: itself.
    """
    weighted = weighted_methods(shop.recipe.distill)
    methods = [method for method, _ in weighted]
    needs = [method.needs for method in methods]
    ours, theirs = surveyed(shop, teacher, student, methods)
    for method in methods:
        method.build(ours.shapes, theirs.shapes)
    if teaching is None:
        teaching = (LiveByBatch if by_batch else Live)(teacher, View(teacher, theirs, needs, "teacher"))
    return Distillation(
        [Lesson(teaching, weighted, View(student, ours, needs, "student"))],
        cross_entropy=0.0,
        gathering=shop.gathering(shop.recipe.distill),
        named_by_teacher=True,
    )


def to_uint8(images: Tensor) -> Tensor:
    """Images in [0, 1], or beyond, to the nearest of 256 values: uint8 of the same shape."""
    return images.clamp(0, 1).mul(255).round().to(torch.uint8)


def leave_images(shop: Workshop, images: Tensor, teacher: Classifier, what: str, *, by_batch: bool = False) -> None:
    """Leave images uint8 `[N, C, H, W]` in the run folder for calibration and comparison, and say what they show.

    by_batch: whether the teacher, which names the class of each, normalises by the batch.
    """
    classes = shop.splits.classes
    called = called_by(teacher, images, shop, by_batch=by_batch)
    say_histogram(called, classes, what)
    if shop.processes.first:
        pixels = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        made = synthesised.Synthesised(ImageSet(pixels, called.numpy(), classes), what)
        synthesised.write(shop.networks.parent, made, teacher_statistics="batch" if by_batch else "running")


def called_by(teacher: Classifier, images: Tensor, shop: Workshop, *, by_batch: bool = False) -> Tensor:
    """The class that the teacher names for each image: int64 `[N]` on the CPU."""
    unlabelled = torch.zeros(len(images), dtype=torch.int64, device=shop.device)
    data = TensorSet(images.to(shop.device), unlabelled)
    batches = EvalBatches(data, batch=shop.recipe.distill.batch, share=shop.processes.share)
    decided = shop.decide(TrainSpec(precision="float32"))
    if by_batch:
        with batch_statistics(teacher):
            logits, _ = predict(teacher, batches, decided)
    else:
        logits, _ = predict(teacher, batches, decided)
    return logits.argmax(dim=1)


def say_histogram(called: Tensor, classes: tuple[str, ...], what: str) -> None:
    """Say how a teacher's classes are spread over images: few of them teach a student little."""
    counts = torch.bincount(called, minlength=len(classes)).double()
    shares = counts / counts.sum()
    entropy = -(shares * shares.clamp(min=1e-12).log()).sum().item()
    most = shares.argsort(descending=True)[:3].tolist()
    named = ", ".join(f"{classes[label]} {shares[label]:.1%}" for label in most)
    events.say(
        f"teacher on {len(called)} {what}: {int((counts > 0).sum())} of {len(classes)} classes ({named}, ...), entropy "
        f"{entropy:.2f} of at most {math.log(len(classes)):.2f}"
    )
