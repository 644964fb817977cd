"""Few labels, and many images without one: a teacher learns from the few, and labels the rest for its student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from kdeploy import events
from kdeploy.errors import UserError
from kdeploy.loading import EvalBatches
from kdeploy.loading.seeds import seed_of
from kdeploy.models.classifier import Classifier
from kdeploy.recipe.procedures.unlabelled import MIXED, WEIGHTED, UnlabelledOptions, alone_training
from kdeploy.recipe.schema import Recipe
from kdeploy.sources import labelling
from kdeploy.sources.base import ImageSet
from kdeploy.sources.labelling import Labelled
from kdeploy.training.evaluate import accuracy, predict
from kdeploy.training.links import Link, learn
from kdeploy.training.objective import Lesson
from kdeploy.training.procedures.base import Job, Workshop, alone_job, weighted_methods
from kdeploy.training.procedures.offline import link_job, teacher_jobs
from kdeploy.training.setup import Setup
from kdeploy.training.unlabelled import (
    Compared,
    FewLabels,
    Mixed,
    Plain,
    Reliability,
    Sureness,
    Weighted,
    Weighting,
)


class Unlabelled:
    """A share of the training images keeps its labels (`labelled`, of each class alike); of all others nobody learns
    them. The teacher is trained on labelled images alone, the student alone on all labelled images (the baseline), the
    student on all images: by cross-entropy on the labelled ones, and by the teacher's labels, which are those of the
    very view that it sees, on the others. Every image comes once an epoch; with B a batch, its loss is

        (1/B) * (cross_entropy * sum over labelled CE(label, f) + weight * sum over others L(x))

    plain: L is any method that needs no labels and no turned images, such as kd; at temperature 1 that is
    cross-entropy with the teacher's label, which both papers compare themselves with.

    weighted: Iliopoulos, Kontonis, Baykal, Menghani, Trinh, Vee: "Weighted Distillation with Unlabeled Examples",
    NeurIPS 2022, arXiv 2210.06711. With p(x) the probability that the teacher errs, and distortion(x) the loss under
    its wrong label over that under the true one,

        L = w(x) * CE(teacher's label, f),    w(x) = 1 / (1 + p(x) * (distortion(x) - 1)) <= 1

    whose expectation is the cross-entropy with the true label. p is a mean over the nearest labelled images that
    neither network learns from, at (margin of the teacher, margin of the student), and distortion one over those of
    them where the teacher errs; a margin is the largest probability less the second.

    mixed: Kontonis, Iliopoulos, Trinh, Baykal, Menghani, Vee: "SLaM: Student-Label Mixing for Distillation with
    Unlabeled Examples", NeurIPS 2023, arXiv 2302.03806. With alpha(x) the probability that the teacher is right, and
    top_k(x) 1 for its likeliest k classes,

        L = CE(teacher's label, alpha(x) * f + (1 - alpha(x)) * (1 - f) * top_k(x))

    so that a prediction is not held to a label that the teacher is likely to have wrong; with `normalized`, the second
    part is over k - 1, as in the paper's theory. alpha is isotonic regression, on the teacher's margin, of whether it
    is right about labelled images that it has not learnt from; no less than `least_alpha`, as from 1/2 down the
    gradient would point the other way.

    The code of neither paper was at hand, and what follows are choices made here. Estimates come from images out of
    `labelled`, the share `estimation` of them, and not from the validation split, whose labels would outnumber them: a
    run uses as many labels as it says. mixed teaches the student those labels as well, as alpha depends on the teacher
    alone; weighted keeps them from it, because the losses of a student that knows them by heart say nothing of other
    images; plain teaches them, and has the same teacher, for comparison, unless `estimation` is 0. Weights are
    estimated in evaluation mode on unchanged images, from the student as it is when an epoch begins, behind
    `warm_up_epochs`. They are not normalised, and how many images they are as good as is said. The wrong label of more
    than two classes is the one that the teacher gives, and p and distortion hold for its likeliest class, be its labels
    soft or hard.

    What else true labels are used for: images to label are drawn class by class, as if somebody had labelled as many of
    each; validation accuracy is shown, and a teacher near chance refused, but `select: validation` is not allowed; and
    images to calibrate int8 by are drawn balanced over the classes, as in any run. Training accuracy is that of the
    labelled images alone.
    """

    def jobs(self, recipe: Recipe) -> list[Job]:
        link = Link("student", recipe.student, "teacher", recipe.distill)
        _require_no_labels(recipe)
        (teacher,) = teacher_jobs(recipe, [link])
        chosen = UnlabelledOptions.of(recipe)
        labels = {"labelled": chosen.labelled, "estimation": chosen.estimation}
        alone = alone_job("alone", recipe.student, alone_training(recipe), recipe)
        student = link_job(link, recipe)
        deciding = chosen.model_dump(mode="json", exclude={"alone"})
        jobs = [
            replace(teacher, run=partial(_taught, job=teacher), inputs={**teacher.inputs, "labels": labels}),
            replace(alone, run=partial(_alone, job=alone), inputs={**alone.inputs, "labels": labels}),
            replace(student, run=partial(_student, link=link), inputs={**student.inputs, "unlabelled": deciding}),
        ]
        return [job for job in jobs if job.role != "alone" or recipe.distill.baseline == "alone"]


PROCEDURE = Unlabelled()


def _require_no_labels(recipe: Recipe) -> None:
    """Raise UserError for a method that most images have nothing to give to."""
    for spec, (method, _) in zip(recipe.distill.methods, weighted_methods(recipe.distill), strict=True):
        if method.needs.labels or method.needs.training_labels:
            raise UserError(
                f"{spec.method} wants the label of every image, and most have none in the procedure unlabelled: take "
                "kd or another method without labels; `kdeploy methods NAME` says what each needs."
            )
        if method.needs.rotations > 1:
            raise UserError(f"{spec.method} turns images, for which the procedure unlabelled has no form: take kd.")


def _taught(shop: Workshop, job: Job) -> None:
    """The teacher, from the labelled images but those to estimate by."""
    job.run(_with(shop, shop.splits.train.take(_drawn(shop).taught)))


def _alone(shop: Workshop, job: Job) -> None:
    """The student, from all labelled images and no others."""
    job.run(_with(shop, shop.splits.train.take(_drawn(shop).all)))


def _student(shop: Workshop, link: Link) -> None:
    """The student, from all images, in a workshop where the labels of most are not to be found."""
    drawn, train, weighted = _drawn(shop), shop.splits.train, UnlabelledOptions.of(shop.recipe).variant == WEIGHTED
    shown = labelling.hide(train, drawn.taught if weighted else drawn.all)
    if weighted:
        shown = shown.take(np.setdiff1d(np.arange(len(train)), drawn.estimation))
    labels = int((shown.labels != labelling.HIDDEN).sum())
    events.say(
        f"student: {len(drawn.all):,} images are labelled, {labels:,} of them taught as such, and "
        f"{len(shown) - labels:,} by the teacher's labels"
    )
    estimation = _with(shop, train.take(drawn.estimation))
    blind = _with(shop, shown)
    learn(blind, link, partial(_loss, blind, estimation, link))


def _drawn(shop: Workshop) -> Labelled:
    """The images whose labels may be used, the same in all jobs and for all seeds of a run."""
    chosen = UnlabelledOptions.of(shop.recipe)
    generator = np.random.default_rng(seed_of(shop.recipe.data.split_seed, "labelled"))
    drawn = labelling.draw(shop.splits.train, chosen.labelled, chosen.estimation, generator)
    if isinstance(chosen.neighbours, int) and chosen.neighbours > len(drawn.estimation):
        raise UserError(
            f"distill.procedure_options.neighbours is {chosen.neighbours}, and there are {len(drawn.estimation)} "
            "images to estimate by: lower it, or raise labelled or estimation."
        )
    return drawn


def _with(shop: Workshop, train: ImageSet) -> Workshop:
    """The same with other training images, normalised as all of them are, which takes no label."""
    data = shop.recipe.data.model_copy(update={"normalize": shop.normalize})
    return Workshop(
        recipe=shop.recipe.model_copy(update={"data": data}),
        base=shop.base,
        networks=shop.networks,
        splits=replace(shop.splits, train=train),
        device=shop.device,
        processes=shop.processes,
    )


def _loss(
    shop: Workshop, estimation: Workshop, link: Link, lessons: Sequence[Lesson], cross_entropy: float
) -> FewLabels:
    """What the student minimises; estimation: a workshop whose training images are those to estimate by."""
    chosen, (lesson,) = UnlabelledOptions.of(shop.recipe), lessons
    make = {"plain": _plain, WEIGHTED: _weighted, MIXED: _mixed}[chosen.variant]
    return make(
        _Asking(shop, estimation, link),
        chosen,
        lesson,
        cross_entropy,
        label_smoothing=link.distill.label_smoothing,
        gathering=shop.gathering(link.distill),
    )


def _plain(asking: _Asking, chosen: UnlabelledOptions, lesson: Lesson, cross_entropy: float, **more: Any) -> Plain:
    return Plain(lesson, cross_entropy, **more)


def _weighted(
    asking: _Asking, chosen: UnlabelledOptions, lesson: Lesson, cross_entropy: float, **more: Any
) -> Weighted:
    teacher = asking.teacher()
    _, labels = asking.known(teacher)
    return Weighted(
        lesson,
        cross_entropy,
        form=chosen.labels,
        ask=asking.compared,
        teacher=teacher,
        labels=labels,
        known=asking.shop.tensors("train").labels,
        weighting=Weighting(
            chosen.warm_up_epochs, chosen.refresh, None if chosen.neighbours == "auto" else chosen.neighbours
        ),
        **more,
    )


def _mixed(asking: _Asking, chosen: UnlabelledOptions, lesson: Lesson, cross_entropy: float, **more: Any) -> Mixed:
    logits, labels = asking.known(asking.teacher())
    reliability = Reliability(
        logits,
        labels,
        least=chosen.least_alpha,
        top_k=None if chosen.top_k == "auto" else chosen.top_k,
        accuracy=chosen.top_k_accuracy,
    )
    return Mixed(
        lesson, cross_entropy, form=chosen.labels, reliability=reliability, normalized=chosen.normalized, **more
    )


@dataclass(frozen=True)
class _Asking:
    """Asks networks about images, unchanged and in evaluation mode.

    shop: the student's workshop; estimation: one whose training images are those to estimate by.
    """

    shop: Workshop
    estimation: Workshop
    link: Link

    def teacher(self) -> Classifier:
        teacher = self.shop.load(self.link.teacher)
        self._setup.place(teacher)
        return teacher

    def known(self, teacher: Classifier) -> tuple[Tensor, Tensor]:
        """What the teacher says of the images to estimate by, `[V, C]`, and their labels `[V]`, on the CPU."""
        logits, labels = predict(teacher, self._batches(self.estimation), self._setup)
        events.say(f"the teacher is right on {accuracy(logits, labels):.1%} of the {len(labels)} images to estimate by")
        return logits, labels

    def compared(self, network: nn.Module) -> Compared:
        """What a network says of them, and how sure it is of the training images."""
        logits, _ = predict(network, self._batches(self.estimation), self._setup)
        sure, _ = predict(Sureness(network), self._batches(self.shop), self._setup)
        return Compared(logits, sure[:, 0])

    @cached_property
    def _setup(self) -> Setup:
        return self.shop.decide(self.link.distill)

    def _batches(self, shop: Workshop) -> EvalBatches:
        return EvalBatches(shop.tensors("train"), share=self.shop.processes.share)
