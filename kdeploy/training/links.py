"""A link: one network learns from another, by any methods, with what they need before and after."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
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
from kdeploy.training.ensemble import together
from kdeploy.training.objective import Distillation, Lesson, Loss, PhaseLoss
from kdeploy.training.procedures.base import Workshop, cross_entropy_weight, weighted_methods
from kdeploy.training.rotations import asked
from kdeploy.training.teacher_cache import open_cache
from kdeploy.training.teaching import Live, Teaching
from kdeploy.training.views import Tapped, View, survey


@dataclass(frozen=True)
class Link:
    """One network learning from another.

    role: the network that learns; network: how it is made; teacher: the role that teaches it, finished before, which
    stands for all trained teachers where there are several; distill: how; start: the role whose weights it starts from,
    None where it starts as it is made.
    """

    role: str
    network: NetworkSpec
    teacher: str
    distill: LinkSpec
    start: str | None = None


def taught_by(recipe: Recipe, link: Link) -> dict[str, float]:
    """The roles that teach in a link, each with its share of the teaching; the shares add up to 1."""
    if link.teacher != "teacher":
        return {link.teacher: 1.0}
    total = sum(spec.weight for spec in recipe.all_teachers.values())
    return {role: spec.weight / total for role, spec in recipe.all_teachers.items()}


def cache_for(recipe: Recipe, teacher: str) -> CacheSpec | None:
    """The cache that a network reads which learns from this role: the teachers' own, an assistant has none."""
    return recipe.teacher.cache if recipe.teacher is not None and teacher in recipe.all_teachers else None


def cache_of(recipe: Recipe, teacher: str) -> dict[str, Any]:
    """What of that cache decides the weights of the network; nothing without one."""
    cache = cache_for(recipe, teacher)
    return {} if cache is None else {"cache": cache.model_dump(mode="json", exclude={"folder"})}


def rehearse(shop: Workshop, teacher: Classifier, links: Sequence[Link]) -> None:
    """Build what each link's training needs, so that what does not fit is said before any training."""
    made = {"teacher": teacher}
    for role, spec in shop.recipe.all_teachers.items():
        if role not in made:
            made[role] = shop.make(spec, shop.recipe.seed)
    for link in links:
        student = made[link.role] = shop.make(link.network, shop.recipe.seed)
        for role in taught_by(shop.recipe, link):
            chosen = [method for method, _ in weighted_methods(link.distill)]
            ours, theirs = _survey(shop, link, student, made[role], chosen)
            for method in chosen:
                method.build(ours.shapes, theirs.shapes)


def learn(shop: Workshop, link: Link, loss: Loss | None = None) -> None:
    """A network from the labels and what teaches it; the student's starts and sees what it does alone.

    loss: makes what is minimised, in place of `Distillation`.
    """
    recipe, distill = shop.recipe, link.distill
    shares = taught_by(recipe, link)
    taught = {role: load_teacher(shop, role) for role in shares}
    classifier = shop.make(link.network, recipe.seed)
    if link.start is not None:
        classifier.load_state_dict(shop.load(link.start).state_dict())
    student_net, lessons = classifier, []
    for role, teacher in taught.items():
        lesson, student_net = make_lesson(shop, link, role, teacher, classifier, student_net, shares[role])
        lessons.append(lesson)
    weight = cross_entropy_weight(distill, [method for method, _ in lessons[0].methods])
    objective = (loss or partial(_distillation, shop, link))(lessons, weight)
    shop.train(
        link.role,
        student_net,
        objective,
        distill,
        recipe.seed,
        network_spec=link.network,
        teacher=together(taught, shares),
        cache=cache_for(recipe, link.teacher),
        readout=distill.readout,
    )


def _distillation(shop: Workshop, link: Link, lessons: Sequence[Lesson], cross_entropy: float) -> Distillation:
    return Distillation(
        lessons,
        cross_entropy,
        draw=shop.recipe.seed if len(lessons) > 1 and shop.recipe.distill.teaching == "draw" else None,
        label_smoothing=link.distill.label_smoothing,
        gathering=shop.gathering(link.distill),
    )


def load_teacher(shop: Workshop, role: str) -> Classifier:
    """A network that is to teach, in evaluation mode and frozen; near chance it is refused."""
    teacher = shop.load(role)
    if role in shop.recipe.all_teachers:
        teachers.require_above_chance(teacher, shop, f"the {role}")
    else:
        remedy = "Train it longer, or, where its loss never reaches its last linear layer, give its link a readout."
        teachers.require_above_chance(teacher, shop, role, remedy=remedy)
    return teacher


def make_lesson(
    shop: Workshop,
    link: Link,
    role: str,
    teacher: Classifier,
    student: Classifier,
    deployed: Classifier,
    share: float,
) -> tuple[Lesson, Classifier]:
    """What a teacher has to teach, its methods' phases done; and what `deployed` is with them."""
    weighted = weighted_methods(link.distill)
    chosen = [method for method, _ in weighted]
    needs = [method.needs for method in chosen]
    ours, theirs = _survey(shop, link, student, teacher, chosen)
    decided = shop.decide(link.distill)
    decided.place(teacher)
    first = role == link.teacher
    name = "" if first else f"{role}/"
    for number, method in enumerate(chosen):
        prefix = f"phase-{number}" if first else f"{role}-phase-{number}"
        _prepare(method, shop, link, role, teacher, student, ours, theirs, prefix=prefix)
        deployed = _deployed(method, deployed, teacher, ours, theirs)
    teaching = _teaching(shop, role, teacher, theirs, needs, decided)
    return Lesson(teaching, weighted, View(student, ours, needs, "student"), share, name), deployed


def _teaching(
    shop: Workshop, role: str, teacher: Classifier, theirs: Tapped, needs: Sequence[Needs], decided: setup.Setup
) -> Teaching:
    """The teacher itself, or what it said beforehand where the recipe has a cache."""
    live = Live(teacher, View(teacher, theirs, needs, "teacher"))
    cache = cache_for(shop.recipe, role)
    if cache is None:
        return live
    views = shop.views(shop.recipe.seed, cache)
    made_from = {
        "weights": sha256_file(shop.networks / role / f"{role}.safetensors"),
        "card": read_json(shop.networks / role / f"{role}.json"),
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
    for spec, method in zip(link.distill.methods, chosen, strict=True):
        if method.needs.teacher_classifier and len(taught_by(recipe, link)) > 1:
            raise UserError(
                f"{spec.method} borrows the classifier of one teacher, and there are several: leave `teachers` out."
            )
    if link.distill.compile:
        _require_logits(link, chosen)
    _require_readout(link, chosen)
    if cache_for(recipe, link.teacher) is not None and asked([method.needs for method in chosen]) > 1:
        raise UserError(
            "teacher.cache keeps what the teacher says of unturned images, and a method of this recipe shows it each "
            "in four rotations: leave teacher.cache out."
        )


def _require_logits(link: Link, chosen: Sequence[Method]) -> None:
    """A compiled network has no features to tap: its hooks are compiled away."""
    for spec, method in zip(link.distill.methods, chosen, strict=True):
        if method.needs.features is not None or method.needs.wants_embedding:
            raise UserError(
                f"{spec.method} looks at features, and compile: true is for methods on logits: set compile to false."
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
    role: str,
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
            _teaching(shop, role, teacher, theirs, [method.needs], shop.decide(link.distill)),
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
