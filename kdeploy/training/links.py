"""A link: one network learns from another, by any methods, with what they need before and after."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from kdeploy.artifacts import read_json, sha256_file
from kdeploy.errors import UserError
from kdeploy.loading import digest
from kdeploy.methods.base import Method, Needs
from kdeploy.models.classifier import Classifier
from kdeploy.recipe.schema import CacheSpec, LinkSpec, NetworkSpec, Recipe, TrainSpec, part
from kdeploy.training import loop, setup, teachers
from kdeploy.training.objective import Distillation, PhaseLoss
from kdeploy.training.procedures.base import Workshop, cross_entropy_weight, weighted_methods
from kdeploy.training.rotations import asked
from kdeploy.training.teacher_cache import open_cache
from kdeploy.training.teaching import Live, Teaching
from kdeploy.training.views import Tapped, View, survey


@dataclass(frozen=True)
class Link:
    """One network learning from another.

    role: the network that learns; network: how it is made; teacher: the role that teaches it, finished before;
    distill: how; start: the role whose weights it starts from, None where it starts as it is made.
    """

    role: str
    network: NetworkSpec
    teacher: str
    distill: LinkSpec
    start: str | None = None


def cache_for(recipe: Recipe, teacher: str) -> CacheSpec | None:
    """The cache that a network reads which learns from this role: the teacher's own, an assistant has none."""
    return recipe.teacher.cache if recipe.teacher is not None and teacher == "teacher" else None


def cache_of(recipe: Recipe, teacher: str) -> dict[str, Any]:
    """What of that cache decides the weights of the network; nothing without one."""
    cache = cache_for(recipe, teacher)
    return {} if cache is None else {"cache": cache.model_dump(mode="json", exclude={"folder"})}


def rehearse(shop: Workshop, teacher: Classifier, links: Sequence[Link]) -> None:
    """Build what each link's training needs, so that what does not fit is said before any training."""
    made = {"teacher": teacher}
    for link in links:
        student = made[link.role] = shop.make(link.network, shop.recipe.seed)
        chosen = [method for method, _ in weighted_methods(link.distill)]
        ours, theirs = _survey(shop, link, student, made[link.teacher], chosen)
        for method in chosen:
            method.build(ours.shapes, theirs.shapes)


def learn(shop: Workshop, link: Link) -> None:
    """A network from the labels and the one that teaches it; the student's starts and sees what it does alone."""
    recipe, distill = shop.recipe, link.distill
    teacher = shop.load(link.teacher)
    if link.teacher == "teacher":
        teachers.require_above_chance(teacher, shop, "the teacher")
    else:
        remedy = "Train it longer, or, where its loss never reaches its last linear layer, give its link a readout."
        teachers.require_above_chance(teacher, shop, link.teacher, remedy=remedy)
    classifier = shop.make(link.network, recipe.seed)
    if link.start is not None:
        classifier.load_state_dict(shop.load(link.start).state_dict())
    weighted = weighted_methods(distill)
    chosen = [method for method, _ in weighted]
    needs = [method.needs for method in chosen]
    ours, theirs = _survey(shop, link, classifier, teacher, chosen)
    decided = shop.decide(distill)
    decided.place(teacher)
    student_net = classifier
    for number, method in enumerate(chosen):
        _prepare(method, shop, link, teacher, classifier, ours, theirs, prefix=f"phase-{number}")
        student_net = _deployed(method, student_net, teacher, ours, theirs)
    objective = Distillation(
        _teaching(shop, link, teacher, theirs, needs, decided),
        weighted,
        cross_entropy_weight(distill, chosen),
        view=View(classifier, ours, needs, "student"),
        label_smoothing=distill.label_smoothing,
        gathering=shop.gathering(distill),
    )
    shop.train(
        link.role,
        student_net,
        objective,
        distill,
        recipe.seed,
        network_spec=link.network,
        teacher=teacher,
        cache=cache_for(recipe, link.teacher),
        readout=distill.readout,
    )


def _teaching(
    shop: Workshop, link: Link, teacher: Classifier, theirs: Tapped, needs: Sequence[Needs], decided: setup.Setup
) -> Teaching:
    """The teacher itself, or what it said beforehand where the recipe has a cache."""
    live = Live(teacher, View(teacher, theirs, needs, "teacher"))
    cache = cache_for(shop.recipe, link.teacher)
    if cache is None:
        return live
    views = shop.views(shop.recipe.seed, cache)
    made_from = {
        "weights": sha256_file(shop.networks / "teacher" / "teacher.safetensors"),
        "card": read_json(shop.networks / "teacher" / "teacher.json"),
        "images": digest(views.data),
        "augment": shop.recipe.data.deciding()["augment"],
        "seed": views.seed,
        "precision": decided.precision,
        **({} if views.mean is None else {"mean": views.mean}),
    }
    with shop.processes.first_alone():
        return open_cache(live, theirs, needs, views, cache, decided, made_from)


def _deployed(method: Method, student: Classifier, teacher: Classifier, ours: Tapped, theirs: Tapped) -> Classifier:
    """What is trained, evaluated and saved: the student, or what a method such as SimKD makes of it."""
    if not method.needs.teacher_classifier:
        return student
    assert theirs.classifier is not None
    head = copy.deepcopy(teacher.network.get_submodule(theirs.classifier.path)).cpu()
    assert isinstance(head, nn.Linear)
    if teacher.class_map is not None:
        order = teacher.class_map.cpu()
        head.weight.data, head.bias.data = head.weight.data[order], head.bias.data[order]
        head.out_features = len(order)
    network = method.deployed(student.network, ours.stages[-1].path, head)
    return Classifier(network, student.mean.flatten().tolist(), student.std.flatten().tolist())


def _survey(
    shop: Workshop, link: Link, student: Classifier, teacher: Classifier, chosen: list[Method]
) -> tuple[Tapped, Tapped]:
    """Where student and teacher are tapped for these methods."""
    height, width, channels = shop.splits.shape
    needs = [method.needs for method in chosen]
    return survey(
        student,
        teacher,
        needs,
        shape=(channels, height, width),
        classes=len(shop.splits.classes),
        taps=link.distill.taps,
    )


def check(link: Link, recipe: Recipe) -> None:
    """Raise a UserError for a link whose methods, options, cache or lack of a readout do not go together."""
    chosen = [method for method, _ in weighted_methods(link.distill)]
    _require_readout(link, chosen)
    if cache_for(recipe, link.teacher) is not None and asked([method.needs for method in chosen]) > 1:
        raise UserError(
            "teacher.cache keeps what the teacher says of unturned images, and a method of this recipe shows it each "
            "in four rotations: leave teacher.cache out."
        )


def _require_readout(link: Link, chosen: Sequence[Method]) -> None:
    """Something must train the last linear layer of the network that learns."""
    weight = cross_entropy_weight(link.distill, chosen)
    if link.distill.readout is None and weight == 0 and all(map(_features_only, chosen)):
        names = " and ".join(spec.method for spec in link.distill.methods)
        raise UserError(
            f"{names} without cross-entropy never trains the last linear layer of {link.role}, which would guess: "
            "add readout: {epochs: 10} to train it afterwards on the frozen features, or set cross_entropy above 0."
        )


def _features_only(method: Method) -> bool:
    """Whether a method is meant to stand without cross-entropy and looks at features, with no classifier to borrow."""
    looks = method.needs.features is not None or method.needs.embedding
    return looks and method.default_cross_entropy == 0 and not method.needs.teacher_classifier


def _prepare(
    method: Method,
    shop: Workshop,
    link: Link,
    teacher: Classifier,
    student: Classifier,
    ours: Tapped,
    theirs: Tapped,
    *,
    prefix: str,
) -> None:
    """Make the method's adapters, give it the labels if it wants them, and run the phases that it declares."""
    method.build(ours.shapes, theirs.shapes)
    if method.needs.training_labels:
        method.prepare(shop.tensors("train").labels)
    for phase in method.phases():
        objective = PhaseLoss(
            _teaching(shop, link, teacher, theirs, [method.needs], shop.decide(link.distill)),
            method,
            phase,
            view=View(student, ours, [method.needs], "student"),
        )
        _run_phase(objective, shop, link, student, shop.networks / link.role / f"{prefix}-{phase.name}")
        method.end_phase(phase)


def _run_phase(objective: PhaseLoss, shop: Workshop, link: Link, student: Classifier, folder: Path) -> None:
    """Train the method, and the student where the phase says so; without gradients it stays as it is."""
    recipe, phase = shop.recipe, objective.phase
    changed: dict[str, Any] = {"epochs": phase.epochs, "lr": phase.lr, "warmup_epochs": 0.0}
    if phase.milestones:
        changed |= {"schedule": "multistep", "milestones": phase.milestones, "gamma": 0.1}
    spec = part(TrainSpec, link.distill).model_copy(update=changed)
    loop.fit(
        student,
        objective,
        train=shop.training(spec, recipe.seed, cache_for(recipe, link.teacher)),
        validation=None,
        spec=spec,
        setup=shop.decide(spec),
        folder=folder,
        label=f"{link.role}: {phase.name}",
    )
