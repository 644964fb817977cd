"""Offline distillation: a teacher that is trained first, then a student that learns from it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from kdeploy.artifacts import read_json, sha256_file
from kdeploy.errors import UserError
from kdeploy.methods.base import Method, Needs
from kdeploy.models.classifier import Classifier
from kdeploy.recipe.schema import Recipe, TeacherSpec
from kdeploy.training import loop, setup, teachers
from kdeploy.training.objective import CrossEntropy, Distillation, PhaseLoss
from kdeploy.training.procedures.base import (
    Job,
    Workshop,
    alone_job,
    cross_entropy_weight,
    training_of,
    weighted_methods,
)
from kdeploy.training.rotations import asked
from kdeploy.training.teacher_cache import open_cache
from kdeploy.training.teaching import Live, Teaching
from kdeploy.training.views import Tapped, View, survey


class Offline:
    """Teacher, then the student alone (the baseline), then the student with the teacher."""

    about = "a trained teacher, then the student alone and the same student distilled"

    def jobs(self, recipe: Recipe) -> list[Job]:
        _require_live([method for method, _ in weighted_methods(recipe)], recipe)
        data = recipe.data.model_dump(mode="json")
        student = recipe.student.model_dump(mode="json")
        spec = _spec(recipe)
        teacher_seed = recipe.seed if spec.seed is None else spec.seed
        teacher = Job(
            "teacher",
            _teacher,
            {"data": data, "network": spec.model_dump(mode="json", exclude={"cache"})},
            teacher_seed,
        )
        alone = alone_job(recipe)
        distilled = Job(
            "student",
            _student,
            {
                "data": data,
                "network": student,
                "distill": recipe.distill.model_dump(mode="json", exclude={"baseline", "peers"}),
                **_cache_of(recipe),
            },
            recipe.seed,
            needs=("teacher",),
        )
        return [teacher, alone, distilled] if recipe.distill.baseline == "alone" else [teacher, distilled]


PROCEDURE = Offline()


def _spec(recipe: Recipe) -> TeacherSpec:
    """The teacher, which no recipe of this procedure is without (`Recipe`)."""
    assert recipe.teacher is not None
    return recipe.teacher


def _require_live(chosen: Sequence[Method], recipe: Recipe) -> None:
    """Raise UserError where a method turns images of which a teacher cache keeps the unturned ones only."""
    if _spec(recipe).cache is not None and asked([method.needs for method in chosen]) > 1:
        raise UserError(
            "teacher.cache keeps what the teacher says of unturned images, and a method of this recipe shows it each "
            "in four rotations: leave teacher.cache out."
        )


def _cache_of(recipe: Recipe) -> dict[str, Any]:
    """What of a teacher cache decides the student's weights; nothing without one."""
    cache = _spec(recipe).cache
    return {} if cache is None else {"cache": cache.model_dump(mode="json", exclude={"folder"})}


def _teacher(shop: Workshop) -> None:
    """Load, check, and train or fine-tune the teacher; a checkpoint near chance is refused first."""
    spec = _spec(shop.recipe)
    seed = shop.recipe.seed if spec.seed is None else spec.seed
    _rehearse(shop, shop.make(spec, seed))
    classifier = shop.make(spec, seed)
    if spec.checkpoint is not None or spec.train is None:
        teachers.require_above_chance(classifier, shop, "the teacher's checkpoint")
    if spec.train is None:
        shop.save(classifier, "teacher", spec)
        return
    objective = CrossEntropy(spec.train.label_smoothing)
    shop.train("teacher", classifier, objective, spec.train, seed, network_spec=spec)


def _rehearse(shop: Workshop, teacher: Classifier) -> None:
    """Build what the student's training needs, so that what does not fit is said before any training."""
    student = shop.make(shop.recipe.student, shop.recipe.seed)
    chosen = [method for method, _ in weighted_methods(shop.recipe)]
    ours, theirs = _survey(shop, student, teacher, chosen)
    for method in chosen:
        method.build(ours.shapes, theirs.shapes)


def _student(shop: Workshop) -> None:
    """The same student, from the same initial weights and batches, with the teacher beside the labels."""
    recipe = shop.recipe
    teacher = shop.load("teacher")
    teachers.require_above_chance(teacher, shop, "the teacher")
    classifier = shop.make(recipe.student, recipe.seed)
    weighted = weighted_methods(recipe)
    needs = [method.needs for method, _ in weighted]
    ours, theirs = _survey(shop, classifier, teacher, [method for method, _ in weighted])
    decided = shop.decide(recipe.distill)
    decided.place(teacher)
    student_net = classifier
    for number, (method, _) in enumerate(weighted):
        _prepare(method, shop, teacher, classifier, ours, theirs, prefix=f"phase-{number}")
        student_net = _deployed(method, student_net, teacher, ours, theirs)
    objective = Distillation(
        _teaching(shop, teacher, theirs, needs, decided),
        weighted,
        cross_entropy_weight(recipe, [method for method, _ in weighted]),
        view=View(classifier, ours, needs, "student"),
        label_smoothing=recipe.distill.label_smoothing,
        gathering=shop.gathering(),
    )
    shop.train(
        "student",
        student_net,
        objective,
        recipe.distill,
        recipe.seed,
        network_spec=recipe.student,
        teacher=teacher,
        cache=_spec(recipe).cache,
    )


def _teaching(
    shop: Workshop, teacher: Classifier, theirs: Tapped, needs: Sequence[Needs], decided: setup.Setup
) -> Teaching:
    """The teacher itself, or what it said beforehand where the recipe has a cache."""
    live = Live(teacher, View(teacher, theirs, needs, "teacher"))
    cache = _spec(shop.recipe).cache
    if cache is None:
        return live
    views = shop.views(shop.recipe.seed, cache)
    made_from = {
        "weights": sha256_file(shop.networks / "teacher" / "teacher.safetensors"),
        "card": read_json(shop.networks / "teacher" / "teacher.json"),
        "images": hashlib.sha256(views.data.images.cpu().numpy().data).hexdigest(),
        "augment": shop.recipe.data.augment.model_dump(mode="json"),
        "seed": views.seed,
        "precision": decided.precision,
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


def _survey(shop: Workshop, student: Classifier, teacher: Classifier, chosen: list[Method]) -> tuple[Tapped, Tapped]:
    """Where student and teacher are tapped for these methods."""
    height, width, channels = shop.splits.shape
    needs = [method.needs for method in chosen]
    return survey(student, teacher, needs, shape=(channels, height, width), classes=len(shop.splits.classes))


def _prepare(
    method: Method,
    shop: Workshop,
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
            _teaching(shop, teacher, theirs, [method.needs], shop.decide(shop.recipe.distill)),
            method,
            phase,
            view=View(student, ours, [method.needs], "student"),
        )
        _run_phase(objective, shop, student, shop.networks / "student" / f"{prefix}-{phase.name}")
        method.end_phase(phase)


def _run_phase(objective: PhaseLoss, shop: Workshop, student: Classifier, folder: Path) -> None:
    """Train the method, and the student where the phase says so; without gradients it stays as it is."""
    recipe, phase = shop.recipe, objective.phase
    changed: dict[str, Any] = {"epochs": phase.epochs, "lr": phase.lr, "warmup_epochs": 0.0}
    if phase.milestones:
        changed |= {"schedule": "multistep", "milestones": phase.milestones, "gamma": 0.1}
    spec = training_of(recipe).model_copy(update=changed)
    loop.fit(
        student,
        objective,
        train=shop.training(spec, recipe.seed, _spec(recipe).cache),
        validation=None,
        spec=spec,
        setup=shop.decide(spec),
        folder=folder,
        label=f"student: {phase.name}",
    )
