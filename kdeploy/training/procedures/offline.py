"""Offline distillation: a teacher that is trained first, then a student that learns from it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from kdeploy.recipe.schema import LinkSpec, NetworkSpec, Recipe, TrainSpec, part
from kdeploy.training import teachers
from kdeploy.training.links import Link, cache_for, learn, rehearse, require_readout
from kdeploy.training.objective import CrossEntropy
from kdeploy.training.procedures.base import Job, Workshop


class Offline:
    """Teacher, then the student alone (the baseline), then the student with the teacher."""

    about = "a trained teacher, then the student alone and the same student distilled"

    def jobs(self, recipe: Recipe) -> list[Job]:
        link = Link("student", recipe.student, "teacher", recipe.distill)
        baseline = [alone_job("alone", recipe.student, recipe.distill, recipe)]
        return [
            teacher_job(recipe, [link]),
            *(baseline if recipe.distill.baseline == "alone" else []),
            link_job(link, recipe),
        ]


PROCEDURE = Offline()


def teacher_job(recipe: Recipe, links: Sequence[Link]) -> Job:
    """The job that loads or trains the teacher; what does not fit in the links behind it is said before it begins."""
    for link in links:
        require_readout(link)  # what is wrong with methods and their options is said before any work begins
    seed = recipe.seed if recipe.teacher.seed is None else recipe.teacher.seed
    network = recipe.teacher.model_dump(mode="json", exclude={"cache"})
    return Job("teacher", partial(_teacher, links=links), {"data": _data(recipe), "network": network}, seed)


def alone_job(role: str, network: NetworkSpec, spec: TrainSpec, recipe: Recipe) -> Job:
    """The job that trains a network from the labels only."""
    inputs = {
        "data": _data(recipe),
        "network": _network(network),
        "train": part(TrainSpec, spec).model_dump(mode="json"),
    }
    return Job(role, partial(_alone, role=role, network=network, spec=spec), inputs, recipe.seed)


def link_job(link: Link, recipe: Recipe) -> Job:
    """The job of a link."""
    inputs = {
        "data": _data(recipe),
        "network": _network(link.network),
        "distill": part(LinkSpec, link.distill).model_dump(mode="json"),
        **({} if link.start is None else {"start": link.start}),
        **_cache_of(recipe, link),
    }
    needs = (link.teacher,) if link.start is None else (link.teacher, link.start)
    return Job(link.role, partial(learn, link=link), inputs, recipe.seed, needs)


def _data(recipe: Recipe) -> dict[str, Any]:
    return recipe.data.model_dump(mode="json")


def _network(spec: NetworkSpec) -> dict[str, Any]:
    """What makes a network, without what an assistant says of its training."""
    return part(NetworkSpec, spec).model_dump(mode="json")


def _cache_of(recipe: Recipe, link: Link) -> dict[str, Any]:
    """What of a teacher cache decides the weights of a link's network; nothing without one."""
    cache = cache_for(recipe, link)
    return {} if cache is None else {"cache": cache.model_dump(mode="json", exclude={"folder"})}


def _teacher(shop: Workshop, links: Sequence[Link]) -> None:
    """Load, check, and train or fine-tune the teacher; a checkpoint near chance is refused first."""
    spec = shop.recipe.teacher
    seed = shop.recipe.seed if spec.seed is None else spec.seed
    rehearse(shop, shop.make(spec, seed), links)
    classifier = shop.make(spec, seed)
    if spec.checkpoint is not None or spec.train is None:
        teachers.require_above_chance(classifier, shop, "the teacher's checkpoint")
    if spec.train is None:
        shop.save(classifier, "teacher", spec)
        return
    objective = CrossEntropy(spec.train.label_smoothing)
    shop.train("teacher", classifier, objective, spec.train, seed, network_spec=spec)


def _alone(shop: Workshop, role: str, network: NetworkSpec, spec: TrainSpec) -> None:
    """A network from the labels only."""
    classifier = shop.make(network, shop.recipe.seed)
    shop.train(role, classifier, CrossEntropy(spec.label_smoothing), spec, shop.recipe.seed, network_spec=network)
