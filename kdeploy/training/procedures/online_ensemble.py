"""Online ensemble: students of several widths behind one stem are trained together, and all of them are deployed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from kdeploy.errors import UserError
from kdeploy.loading.seeds import seed_of
from kdeploy.methods.base import Method
from kdeploy.models.classifier import Classifier
from kdeploy.models.stages import share_stem
from kdeploy.recipe.networks import STUDENT, baseline_role
from kdeploy.recipe.procedures.online_ensemble import OnlineOptions, students
from kdeploy.recipe.schema import Recipe
from kdeploy.training.objective import CrossEntropy
from kdeploy.training.online import FEATURES, Adapters, OnlineEnsemble
from kdeploy.training.procedures.base import (
    Job,
    Workshop,
    alone_job,
    cross_entropy_weight,
    require_whole_images,
    weighted_methods,
)
from kdeploy.training.views import View, survey_all


class OnlineEnsembleCompression:
    """Each student alone (the baseline), then all of them together, from the same initial weights.

    Walawalkar, Shen, Savvides: "Online Ensemble Model Compression using Knowledge Distillation", ECCV 2020, arXiv
    2011.07449. N students of one depth share a stem. The first is the recipe's student; the j-th has (N - j + 1)/N of
    its channels (`widths`). Each learns the labels and, by `method`, the mean of all students' logits; the stages of
    the narrower ones learn those of the first, each through a 1x1 convolution (`training/online.py`). For ResNet-110 on
    CIFAR-100 the authors weigh the three by `cross_entropy: 0.7`, `feature_weight: 0.15` and, for `method: kd` with
    `options: {temperature: 2}`, `weight: 0.15`. `method` may also be dkd, dist, nkd or another one on logits, or a sum
    of such.

    One training leaves N whole networks, each with its copy of the stem, in networks/student, networks/student-2 and
    so on; all are exported, compiled and bundled. As `alone`, `alone-2` and so on, the same networks are trained on the
    labels only, one by one, each with a stem of its own.

    What the authors' code does otherwise, and what was decided here:

    Its 1x1 convolutions are never given to the optimiser and stay random: here they are trained.
    Its students do not hear of train() and eval(), so that it validates on batch statistics and lets the test images
    into the running ones: here every network is evaluated on its running statistics, and only training images enter.
    Its divergence is NaN where a probability underflows: here it is taken between log-softmaxes.
    Its flag for the stem's gradient is inverted for ResNets, and not for DenseNets: `stem_gradient: all`, the default,
    is what its ResNets do with the flag off, `first` what its DenseNets do. Which of the two the paper means was not to
    be established.
    It truncates channels to whole numbers; here they are rounded, as everywhere in the zoo, so that a student is what
    `width` makes of a network in any recipe. Of 16/32/64 channels the five students have 13/26/51, 10/19/38, 6/13/26
    and 3/6/13; the authors' have 12/25/51, 9/19/38, 6/12/25 and 3/6/12.
    Its weights of the students in the mean are marked as trained and never are: here the mean is a plain one.
    Published gains rest in part on these, so that none is printed beside ours.
    """

    def jobs(self, recipe: Recipe) -> list[Job]:
        require_whole_images(recipe.distill, recipe)
        _require_logits(recipe)
        _, *others = students(recipe)
        inputs = {
            "data": recipe.data.deciding(),
            "network": recipe.student.model_dump(mode="json"),
            "distill": recipe.distill.model_dump(mode="json", exclude={"baseline"}),
        }
        together = Job(STUDENT, _together, inputs, recipe.seed, beside=tuple(others))
        return [*(_alone_jobs(recipe) if recipe.distill.baseline == "alone" else []), together]


PROCEDURE = OnlineEnsembleCompression()


def _require_logits(recipe: Recipe) -> None:
    """Raise UserError for a method that looks at more than logits: an ensemble has nothing else."""
    for spec, (method, _) in zip(recipe.distill.methods, weighted_methods(recipe.distill), strict=True):
        looks = method.needs.wants_embedding or method.needs.teacher_classifier or method.needs.rotations > 1
        adapts = type(method).build is not Method.build or method.phases()
        if looks or adapts:
            raise UserError(
                f"{spec.method} looks at more of its teacher than logits, and the teacher of an online ensemble is the "
                "mean of its students' logits: take kd, dkd, dist, nkd or another method on logits."
            )


def _alone_jobs(recipe: Recipe) -> list[Job]:
    """Each student from the labels only. The first one's seed makes the stem that all of them start from."""
    jobs = []
    for role, network in students(recipe).items():
        job = alone_job(baseline_role(role), network, recipe.distill, recipe)
        stem = {} if role == STUDENT else {"stem": recipe.student.model_dump(mode="json")}
        jobs.append(replace(job, run=partial(_alone, role=role), inputs={**job.inputs, **stem}))
    return jobs


def _alone(shop: Workshop, role: str) -> None:
    """A student from the labels only; what does not fit in the training after it is said first."""
    made, _ = _made(shop)
    spec, seed = shop.recipe.distill, shop.recipe.seed
    network = students(shop.recipe)[role]
    shop.train(baseline_role(role), made[role], CrossEntropy(spec.label_smoothing), spec, seed, network_spec=network)


def _together(shop: Workshop) -> None:
    """All students at once."""
    recipe = shop.recipe
    specs = students(recipe)
    made, objective = _made(shop)
    shop.train(
        STUDENT,
        made[STUDENT],
        objective,
        recipe.distill,
        recipe.seed,
        network_spec=specs[STUDENT],
        beside={role: (made[role], spec) for role, spec in specs.items() if role != STUDENT},
    )


def _made(shop: Workshop) -> tuple[dict[str, Classifier], OnlineEnsemble]:
    """The students by role, with the stem of the first in all of them, and their loss.

    The first starts as it would in any recipe of this seed, the others from a seed of their own.
    """
    recipe, chosen = shop.recipe, OnlineOptions.of(shop.recipe)
    (_, full), *further = students(recipe).items()
    others = {role: shop.make(spec, seed_of(recipe.seed, role) % 2**32) for role, spec in further}
    first = shop.make(full, recipe.seed)
    share_stem(first.network, [other.network for other in others.values()])
    everyone = [first, *others.values()]
    height, width, channels = shop.splits.shape
    tapped = survey_all(everyone, [FEATURES], shape=(channels, height, width), classes=len(shop.splits.classes))
    wide, *narrow = (each.shapes for each in tapped)
    weighted = weighted_methods(recipe.distill)
    for method, _ in weighted:
        if method.needs.training_labels:
            method.prepare(shop.tensors("train").labels)
    looks = chosen.feature_weight > 0
    objective = OnlineEnsemble(
        first,
        others,
        weighted,
        cross_entropy_weight(recipe.distill, [method for method, _ in weighted]),
        feature_weight=chosen.feature_weight,
        adapters={role: Adapters(each, wide) for role, each in zip(others, narrow, strict=True)} if looks else {},
        views=[View(*seen, [FEATURES], "student") for seen in zip(everyone, tapped, strict=True)] if looks else [],
        stem_gradient=chosen.stem_gradient == "all",
        label_smoothing=recipe.distill.label_smoothing,
        gathering=shop.gathering(recipe.distill),
    )
    return {STUDENT: first, **others}, objective
