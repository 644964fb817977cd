"""Offline distillation: a teacher that is trained first, then a student that learns from it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from kdeploy import methods
from kdeploy.artifacts import read_json, sha256_file
from kdeploy.errors import UserError
from kdeploy.loading import digest
from kdeploy.methods.base import Method, Needs
from kdeploy.models.classifier import Classifier
from kdeploy.recipe.schema import Recipe, TrainSpec
from kdeploy.training import loop, setup, teachers
from kdeploy.training.objective import CrossEntropy, Distillation, PhaseLoss
from kdeploy.training.procedures.base import Job, Workshop
from kdeploy.training.teacher_cache import open_cache
from kdeploy.training.teaching import Live, Teaching
from kdeploy.training.views import Tapped, View, survey


class Offline:
    """Teacher, then the student alone (the baseline), then the student with the teacher."""

    about = "a trained teacher, then the student alone and the same student distilled"

    def jobs(self, recipe: Recipe) -> list[Job]:
        _methods(recipe)  # what is wrong with their options is said before any work begins
        data = recipe.data.deciding()
        student = recipe.student.model_dump(mode="json")
        teacher_seed = recipe.seed if recipe.teacher.seed is None else recipe.teacher.seed
        teacher = Job(
            "teacher",
            _teacher,
            {"data": data, "network": recipe.teacher.model_dump(mode="json", exclude={"cache"})},
            teacher_seed,
        )
        alone = Job(
            "alone",
            _alone,
            {"data": data, "network": student, "train": training_of(recipe).model_dump(mode="json")},
            recipe.seed,
        )
        distilled = Job(
            "student",
            _student,
            {
                "data": data,
                "network": student,
                "distill": recipe.distill.model_dump(mode="json", exclude={"baseline"}),
                **_cache_of(recipe),
            },
            recipe.seed,
            needs=("teacher",),
        )
        return [teacher, alone, distilled] if recipe.distill.baseline == "alone" else [teacher, distilled]


PROCEDURE = Offline()


def _cache_of(recipe: Recipe) -> dict[str, Any]:
    """What of a teacher cache decides the student's weights; nothing without one."""
    cache = recipe.teacher.cache
    return {} if cache is None else {"cache": cache.model_dump(mode="json", exclude={"folder"})}


def _teacher(shop: Workshop) -> None:
    """Load, check, and train or fine-tune the teacher; a checkpoint near chance is refused first."""
    spec = shop.recipe.teacher
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
    chosen = [method for method, _ in _methods(shop.recipe)]
    ours, theirs = _survey(shop, student, teacher, chosen)
    for method in chosen:
        method.build(ours.shapes, theirs.shapes)


def _alone(shop: Workshop) -> None:
    """The student from the labels only."""
    recipe = shop.recipe
    classifier = shop.make(recipe.student, recipe.seed)
    objective = CrossEntropy(recipe.distill.label_smoothing)
    shop.train("alone", classifier, objective, recipe.distill, recipe.seed, network_spec=recipe.student)


def _student(shop: Workshop) -> None:
    """The same student, from the same initial weights and batches, with the teacher beside the labels."""
    recipe = shop.recipe
    teacher = shop.load("teacher")
    teachers.require_above_chance(teacher, shop, "the teacher")
    classifier = shop.make(recipe.student, recipe.seed)
    weighted = _methods(recipe)
    needs = [method.needs for method, _ in weighted]
    ours, theirs = _survey(shop, classifier, teacher, [method for method, _ in weighted])
    decided = setup.choose(recipe.distill, shop.device)
    decided.place(teacher)
    student_net = classifier
    for number, (method, _) in enumerate(weighted):
        _prepare(method, shop, teacher, classifier, ours, theirs, prefix=f"phase-{number}")
        student_net = _deployed(method, student_net, teacher, ours, theirs)
    objective = Distillation(
        _teaching(shop, teacher, theirs, needs, decided),
        weighted,
        _cross_entropy(recipe, [method for method, _ in weighted]),
        view=View(classifier, ours, needs, "student"),
        label_smoothing=recipe.distill.label_smoothing,
    )
    shop.train(
        "student",
        student_net,
        objective,
        recipe.distill,
        recipe.seed,
        network_spec=recipe.student,
        teacher=teacher,
        cache=recipe.teacher.cache,
    )


def _teaching(
    shop: Workshop, teacher: Classifier, theirs: Tapped, needs: Sequence[Needs], decided: setup.Setup
) -> Teaching:
    """The teacher itself, or what it said beforehand where the recipe has a cache."""
    live = Live(teacher, View(teacher, theirs, needs, "teacher"))
    cache = shop.recipe.teacher.cache
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


def _methods(recipe: Recipe) -> list[tuple[Method, float]]:
    chosen = []
    for spec in recipe.distill.methods:
        try:
            method = methods.create(spec.method, **spec.options)
        except (TypeError, ValueError) as error:
            raise UserError(f"The options {spec.options} of the method {spec.method} do not fit: {error}.") from None
        if recipe.data.augment.mixes and (method.needs.labels or method.needs.index or method.needs.training_labels):
            raise UserError(
                f"The method {spec.method} wants one class for each image, and data.augment mixes images: set mixup "
                "and cutmix to 0, or take a method such as kd."
            )
        chosen.append((method, method.default_weight if spec.weight is None else spec.weight))
    return chosen


def _cross_entropy(recipe: Recipe, chosen: list[Method]) -> float:
    """The weight of cross-entropy: the recipe's, else the smallest that one of the methods asks for."""
    asked = recipe.distill.cross_entropy
    return min(method.default_cross_entropy for method in chosen) if asked is None else asked


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
            _teaching(shop, teacher, theirs, [method.needs], setup.choose(shop.recipe.distill, shop.device)),
            method,
            phase,
            view=View(student, ours, [method.needs], "student"),
        )
        _run_phase(objective, shop, student, shop.networks / "student" / f"{prefix}-{phase.name}")
        method.end_phase(phase)


def _run_phase(objective: PhaseLoss, shop: Workshop, student: Classifier, folder: Path) -> None:
    """Train the method, and the student where the phase says so; without gradients it stays as it is."""
    recipe, phase = shop.recipe, objective.phase
    spec = training_of(recipe).model_copy(update={"epochs": phase.epochs, "lr": phase.lr, "warmup_epochs": 0.0})
    loop.fit(
        student,
        objective,
        train=shop.training(spec, recipe.seed, recipe.teacher.cache),
        validation=None,
        spec=spec,
        setup=setup.choose(spec, shop.device),
        folder=folder,
        label=f"student: {phase.name}",
    )


def training_of(recipe: Recipe) -> TrainSpec:
    """The part of `distill` that says how to train, without what says on what."""
    return TrainSpec(**{name: getattr(recipe.distill, name) for name in TrainSpec.model_fields})
