"""Offline distillation: a teacher that is trained first, then a student that learns from it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from kdeploy.recipe.schema import LinkSpec, NetworkSpec, Recipe, TeacherSpec, part
from kdeploy.training import teachers
from kdeploy.training.links import Link, cache_of, check, learn, rehearse, taught_by
from kdeploy.training.objective import CrossEntropy
from kdeploy.training.procedures.base import Job, Workshop, baseline_job, require_whole_images


class Offline:
    """Teacher, then the student alone (the baseline), then the student with the teacher."""

    def jobs(self, recipe: Recipe) -> list[Job]:
        link = Link("student", recipe.student, "teacher", recipe.distill)
        baseline = [baseline_job(recipe)]
        return [
            *teacher_jobs(recipe, [link]),
            *(baseline if recipe.distill.baseline == "alone" else []),
            link_job(link, recipe),
        ]


PROCEDURE = Offline()


def teacher_jobs(recipe: Recipe, links: Sequence[Link]) -> list[Job]:
    """The jobs that load or train a teacher; what does not fit in the links behind is said before the first begins."""
    for link in links:
        require_whole_images(link.distill, recipe)
        check(link, recipe)  # what is wrong with methods and their options is said before any work begins
    jobs = []
    for role, spec in recipe.all_teachers.items():
        seed = recipe.seed if spec.seed is None else spec.seed
        inputs = {"data": _data(recipe), "network": spec.model_dump(mode="json", exclude={"cache", "weight"})}
        rehearsed = links if role == "teacher" else ()
        jobs.append(Job(role, partial(_teacher, role=role, spec=spec, links=rehearsed), inputs, seed))
    return jobs


def link_job(link: Link, recipe: Recipe) -> Job:
    """The job of a link."""
    inputs = {
        "data": _data(recipe),
        "network": part(NetworkSpec, link.network).model_dump(mode="json"),
        "distill": part(LinkSpec, link.distill).model_dump(mode="json"),
        **({} if link.start is None else {"start": link.start}),
        **cache_of(recipe, link.teacher),
    }
    shares = taught_by(recipe, link)
    if len(shares) > 1:
        inputs |= {"shares": shares, "teaching": recipe.distill.teaching}
    needs = tuple(shares) if link.start is None else (*shares, link.start)
    return Job(link.role, partial(learn, link=link), inputs, recipe.seed, needs)


def _data(recipe: Recipe) -> dict[str, Any]:
    return recipe.data.deciding()


def _teacher(shop: Workshop, role: str, spec: TeacherSpec, links: Sequence[Link]) -> None:
    """Load, check, and train or fine-tune a teacher; a checkpoint near chance is refused first."""
    seed = shop.recipe.seed if spec.seed is None else spec.seed
    if links:
        rehearse(shop, shop.make(spec, seed), links)
    classifier = shop.make(spec, seed)
    if spec.checkpoint is not None or spec.train is None:
        on = "validation" if shop.splits.has_training_images else "test"
        teachers.require_above_chance(classifier, shop, f"the {role}'s checkpoint", on=on)
    if spec.train is None:
        shop.save(classifier, role, spec)
        return
    objective = CrossEntropy(spec.train.label_smoothing)
    shop.train(role, classifier, objective, spec.train, seed, network_spec=spec)
