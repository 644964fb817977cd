"""Assistants: a chain of networks from teacher to student, each taught by the one before it."""

from __future__ import annotations

from functools import partial
from typing import Any

from kdeploy import events
from kdeploy.recipe.networks import CHOSEN, alone_role, alone_training, assistant_role, link_into
from kdeploy.recipe.schema import AssistantSpec, LinkSpec, NetworkSpec, Recipe, TrainSpec, part
from kdeploy.training.links import Link, cache_of, learn
from kdeploy.training.procedures.base import Job, Workshop, alone_job, baseline_job
from kdeploy.training.procedures.offline import link_job, teacher_jobs


class Assistants:
    """Mirzadeh, Farajtabar, Li, Levine, Matsukawa, Ghasemzadeh: "Improved Knowledge Distillation via Teacher
    Assistant", AAAI 2020, arXiv 1902.03393.

    A student too small for its teacher learns from an assistant of a size between them, which has learnt from the
    teacher, or from another assistant. Each link is a distillation of its own (`training/links.py`), from the network
    before it as that distillation left it, with any methods, options and training. The authors take the best test
    epoch of each network; here the epoch that the link's `select` says, never chosen on test. Their weight of KD does
    not carry over: their code averages the divergence over the classes, too.

    path auto follows the paper's rule for one assistant: of the candidates, each trained on the labels only, the one
    whose accuracy lies nearest the mean of the teacher's and the student's (here on validation).

    Information-flow modelling (Passalis, Tzelepi, Tefas, CVPR 2020) is such a chain: its auxiliary teacher has the
    student's layout, starts from its own training on the labels (`start: alone`) and learns the teacher's embedding;
    the student learns every layer of it.
    """

    def jobs(self, recipe: Recipe) -> list[Job]:
        alone = [baseline_job(recipe)]
        return [
            *teacher_jobs(recipe, _rehearsed(recipe)),
            *(alone if recipe.distill.baseline == "alone" else []),
            *(_chosen(recipe) if recipe.distill.path == "auto" else _chain(recipe)),
        ]


PROCEDURE = Assistants()


def _links(recipe: Recipe) -> list[Link]:
    """The chain through all assistants, in order."""
    links, teacher = [], "teacher"
    for number, assistant in enumerate(recipe.distill.assistants):
        role = assistant_role(number)
        links.append(_link(role, assistant, teacher, recipe, start=alone_role(role)))
        teacher = role
    return [*links, Link("student", recipe.student, teacher, recipe.distill)]


def _link(role: str, assistant: AssistantSpec, teacher: str, recipe: Recipe, *, start: str) -> Link:
    """The link into an assistant; start: the role of its own training."""
    return Link(role, assistant, teacher, link_into(assistant, recipe), start if assistant.start == "alone" else None)


def _rehearsed(recipe: Recipe) -> list[Link]:
    """The links to try out before any training; with path auto, those through each candidate."""
    if recipe.distill.path == "all":
        return _links(recipe)
    student = Link("student", recipe.student, CHOSEN, recipe.distill)
    candidates = [_link(CHOSEN, one, "teacher", recipe, start="") for one in recipe.distill.assistants]
    return [link for candidate in candidates for link in (candidate, student)]


def _chain(recipe: Recipe) -> list[Job]:
    """Each assistant, behind its own training on the labels where it starts from that, then the student."""
    jobs = []
    for link in _links(recipe):
        if link.start is not None:
            assert isinstance(link.network, AssistantSpec)
            jobs.append(alone_job(link.start, link.network, alone_training(link.network, recipe), recipe))
        jobs.append(link_job(link, recipe))
    return jobs


def _chosen(recipe: Recipe) -> list[Job]:
    """Each candidate on the labels, then the one that is taken, then the student."""
    roles = [alone_role(assistant_role(number)) for number in range(len(recipe.distill.assistants))]
    candidates = list(zip(roles, recipe.distill.assistants, strict=True))
    alone = [alone_job(role, one, alone_training(one, recipe), recipe) for role, one in candidates]
    choices: list[dict[str, Any]] = [
        {
            "network": part(NetworkSpec, one).model_dump(mode="json"),
            "distill": part(LinkSpec, link_into(one, recipe)).model_dump(mode="json"),
            "start": one.start,
        }
        for one in recipe.distill.assistants
    ]
    data = recipe.data.deciding()
    inputs = {"data": data, "candidates": choices, **cache_of(recipe, "teacher")}
    needs = ("teacher", "alone", *roles)
    chosen = Job(CHOSEN, partial(_learn_chosen, candidates=candidates), inputs, recipe.seed, needs)
    return [*alone, chosen, link_job(Link("student", recipe.student, CHOSEN, recipe.distill), recipe)]


def _learn_chosen(shop: Workshop, candidates: list[tuple[str, AssistantSpec]]) -> None:
    """Take the candidate whose accuracy is nearest the middle, and distil the teacher into it."""
    scores = {role: _score(shop, role) for role in ("teacher", "alone", *(role for role, _ in candidates))}
    middle = (scores["teacher"] + scores["alone"]) / 2
    role, assistant = min(candidates, key=lambda candidate: abs(scores[candidate[0]] - middle))
    listed = ", ".join(f"{one.model} {scores[each]:.1%}" for each, one in candidates)
    events.decided(
        "assistant",
        assistant.model,
        f"of {listed} nearest {middle:.1%}, the mean of teacher {scores['teacher']:.1%} and student "
        f"{scores['alone']:.1%}",
    )
    learn(shop, _link(CHOSEN, assistant, "teacher", shop.recipe, start=role))


def _score(shop: Workshop, role: str) -> float:
    """A finished network's accuracy on validation."""
    return shop.score(shop.load(role), TrainSpec())
