"""Perturbed ensemble: several teachers, each for one member of a BatchEnsemble student."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from kdeploy.errors import UserError
from kdeploy.loading.seeds import seeded
from kdeploy.models.batch_ensemble import BatchEnsemble
from kdeploy.models.classifier import Classifier
from kdeploy.recipe.procedures.perturbed_ensemble import PerturbedOptions
from kdeploy.recipe.schema import Recipe
from kdeploy.training.ensemble import together
from kdeploy.training.links import Link, cache_for, load_teacher, make_lesson, taught_by
from kdeploy.training.members import MemberDistillation
from kdeploy.training.perturbation import Perturbation
from kdeploy.training.procedures.base import Job, Workshop, baseline_job, cross_entropy_weight, weighted_methods
from kdeploy.training.procedures.offline import link_job, teacher_jobs


class PerturbedEnsemble:
    """Nam, Yoon, Lee, Lee: "Diversity Matters When Learning From Ensembles", NeurIPS 2021, arXiv 2110.14149.

    The student is a BatchEnsemble: one network whose M members share the weights and differ by two vectors a layer
    (`kdeploy.models.batch_ensemble`). Member m learns from teacher m alone. On the training images teachers hardly
    disagree, and the members would learn to be one network M times. So they are taught on images that are moved, at
    each batch, along a direction in which one teacher, drawn by chance, changes its mind
    (`kdeploy.training.perturbation`). The student's probabilities are the mean of its members'.

    The paper's settings: `method: kd` with `options: {temperature: 1, alpha: 0.9}`, four teachers, cross-entropy on the
    images as they are. Any zoo network becomes such a student, and any method fits that is taught on images as they
    come, by one teacher to one network. Batch norms are shared by the members and see the rows of all of them. The
    student alone, the baseline, is the plain network. To be seen beside it: likelihood and calibration error, and the
    procedure offline with the same teachers, which averages them into a plain student.

    Compiled, the members stand side by side in one graph, each with weights of its own: engines then run plain
    convolutions, at M times the student's bytes. The network's own file shares them.
    """

    def jobs(self, recipe: Recipe) -> list[Job]:
        _require_members_form(recipe)
        link = Link("student", recipe.student, "teacher", recipe.distill)
        first, *others = teacher_jobs(recipe, [link])
        student = link_job(link, recipe)
        ensemble = PerturbedOptions.of(recipe).model_dump(mode="json")
        return [
            replace(first, run=partial(_tried, run=first.run)),
            *others,
            *([baseline_job(recipe)] if recipe.distill.baseline == "alone" else []),
            replace(student, run=partial(_learn, link=link), inputs={**student.inputs, "ensemble": ensemble}),
        ]


PROCEDURE = PerturbedEnsemble()


def _require_members_form(recipe: Recipe) -> None:
    """Raise UserError for a method that does not lead from one teacher to one member on the images as they come."""
    for spec, (method, _) in zip(recipe.distill.methods, weighted_methods(recipe.distill), strict=True):
        needs = method.needs
        trains_first = any(phase.student for phase in method.phases())
        if needs.rotations > 1 or needs.teacher_classifier or trains_first:
            raise UserError(
                f"{spec.method} turns the images, borrows a teacher's classifier or trains the student first, which "
                "members with a teacher each cannot share: take kd, dkd, at or another method, or the procedure "
                "offline."
            )


def _tried(shop: Workshop, run: Callable[[Workshop], None]) -> None:
    """The first teacher; a student that cannot have members is said before it."""
    _student(shop)
    run(shop)


def _student(shop: Workshop) -> Classifier:
    """The student with members: the weights it has alone, and vectors drawn from the run's seed."""
    recipe = shop.recipe
    student = shop.make(recipe.student, recipe.seed)
    members = len(recipe.all_teachers)
    student.network = BatchEnsemble(student.network, members, generator=seeded(recipe.seed, "members"))
    return student


def _learn(shop: Workshop, link: Link) -> None:
    """The student, each of whose members learns from its own teacher."""
    recipe, distill, asked = shop.recipe, link.distill, PerturbedOptions.of(shop.recipe)
    shares = taught_by(recipe, link)
    taught = {role: load_teacher(shop, role) for role in shares}
    student = _student(shop)
    lessons = [
        make_lesson(shop, link, role, teacher, student, student, shares[role])[0] for role, teacher in taught.items()
    ]
    perturb = None
    if asked.perturbation != "none":
        perturb = Perturbation(
            asked.perturbation,
            list(taught.values()),
            step=asked.step,
            temperature=asked.temperature,
            seed=recipe.seed,
            rank=shop.processes.rank,
        )
    objective = MemberDistillation(
        lessons,
        cross_entropy_weight(distill, [method for method, _ in lessons[0].methods]),
        perturb,
        rank_one_lr=asked.rank_one_lr,
        label_smoothing=distill.label_smoothing,
        gathering=shop.gathering(distill),
    )
    shop.train(
        link.role,
        student,
        objective,
        distill,
        recipe.seed,
        network_spec=link.network,
        teacher=together(taught, shares),
        cache=cache_for(recipe, link.teacher),
    )
