"""Offline distillation: a teacher that is trained first, then a student that learns from it."""

from __future__ import annotations

from torch import nn

from kdeploy import methods
from kdeploy.methods.base import Method, Phase, Shapes
from kdeploy.models.classifier import Classifier
from kdeploy.recipe.schema import Recipe, TrainSpec
from kdeploy.training import loop, setup, teachers
from kdeploy.training.objective import CrossEntropy, Distillation, PhaseLoss
from kdeploy.training.procedures.base import Job, Workshop


class Offline:
    """Teacher, then the student alone (the baseline), then the student with the teacher."""

    about = "a trained teacher, then the student alone and the same student distilled"

    def jobs(self, recipe: Recipe) -> list[Job]:
        data = recipe.data.model_dump(mode="json")
        student = recipe.student.model_dump(mode="json")
        teacher_seed = recipe.seed if recipe.teacher.seed is None else recipe.teacher.seed
        teacher = Job(
            "teacher", _teacher, {"data": data, "network": recipe.teacher.model_dump(mode="json")}, teacher_seed
        )
        training = TrainSpec(**{name: getattr(recipe.distill, name) for name in TrainSpec.model_fields})
        alone = Job(
            "alone",
            _alone,
            {"data": data, "network": student, "train": training.model_dump(mode="json")},
            recipe.seed,
        )
        distilled = Job(
            "student",
            _student,
            {"data": data, "network": student, "distill": recipe.distill.model_dump(mode="json", exclude={"baseline"})},
            recipe.seed,
            needs=("teacher",),
        )
        return [teacher, alone, distilled] if recipe.distill.baseline == "alone" else [teacher, distilled]


PROCEDURE = Offline()


def _teacher(shop: Workshop) -> None:
    """Load, check, and train or fine-tune the teacher; a checkpoint near chance is refused first."""
    spec = shop.recipe.teacher
    seed = shop.recipe.seed if spec.seed is None else spec.seed
    classifier = shop.make(spec, seed)
    if spec.checkpoint is not None or spec.train is None:
        teachers.require_above_chance(classifier, shop, "the teacher's checkpoint")
    if spec.train is None:
        shop.save(classifier, "teacher", spec)
        return
    objective = CrossEntropy(spec.train.label_smoothing)
    shop.train("teacher", classifier, objective, spec.train, seed, network_spec=spec)


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
    weighted = [(_prepared(method, shop, teacher, classifier), weight) for method, weight in _methods(recipe)]
    cross_entropy = recipe.distill.cross_entropy
    if cross_entropy is None:
        cross_entropy = min(method.default_cross_entropy for method, _ in weighted)
    objective = Distillation(teacher, weighted, cross_entropy, recipe.distill.label_smoothing)
    setup.choose(recipe.distill, shop.device).place(teacher)
    shop.train(
        "student", classifier, objective, recipe.distill, recipe.seed, network_spec=recipe.student, teacher=teacher
    )


def _methods(recipe: Recipe) -> list[tuple[Method, float]]:
    chosen = []
    for spec in recipe.distill.methods:
        method = methods.create(spec.method, **spec.options)
        chosen.append((method, method.default_weight if spec.weight is None else spec.weight))
    return chosen


def _prepared(method: Method, shop: Workshop, teacher: Classifier, student: Classifier) -> Method:
    """Make the method's adapters and run the phases that it declares."""
    classes = len(shop.splits.classes)
    method.build(Shapes(classes), Shapes(classes))
    for phase in method.phases():
        _run_phase(method, phase, shop, teacher)
        method.end_phase(phase)
    return method


def _run_phase(method: Method, phase: Phase, shop: Workshop, teacher: nn.Module) -> None:
    recipe = shop.recipe
    spec = TrainSpec(**{name: getattr(recipe.distill, name) for name in TrainSpec.model_fields})
    spec = spec.model_copy(update={"epochs": phase.epochs, "lr": phase.lr, "warmup_epochs": 0.0})
    decided = setup.choose(spec, shop.device)
    decided.place(teacher)
    loop.fit(
        method,
        PhaseLoss(teacher, method, phase),
        train=shop.training(spec, recipe.seed),
        validation=None,
        spec=spec,
        setup=decided,
        folder=shop.networks / "student" / f"phase-{phase.name}",
        label=f"student: {phase.name}",
    )
