"""Perturbed ensemble: several teachers into one network with as many members, where the teachers disagree."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field, model_validator

from kdeploy.recipe.networks import Trained, alone, linked, teachers
from kdeploy.recipe.procedures.base import Description, ProcedureOptions
from kdeploy.recipe.schema import Recipe


class PerturbedOptions(ProcedureOptions):
    """How the images are moved that teachers and members are compared on."""

    perturbation: Literal["confods", "ods", "gaussian", "none"] = Field(
        "confods",
        description="ods: along the gradient of a random sum of one teacher's probabilities; confods: the same, less "
        "far where that teacher is unsure; gaussian: anywhere; none: not at all.",
    )
    step: float = Field(1.0, gt=0, description="How far a pixel's value moves, root mean square, of 255.")
    temperature: float = Field(1.0, gt=0, description="ods, confods: of those probabilities.")
    rank_one_lr: float = Field(
        0.5, gt=0, description="Learning rate of the members' own vectors, as a multiple of the recipe's."
    )

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> PerturbedOptions:
        default = type(self).model_fields
        if self.perturbation == "none" and self.step != default["step"].default:
            raise ValueError("step is how far the images are moved, and perturbation is none: leave step out")
        if self.perturbation in ("none", "gaussian") and self.temperature != default["temperature"].default:
            raise ValueError(f"temperature belongs to ods and confods, and perturbation is {self.perturbation}")
        return self


class PerturbedEnsemble(Description):
    """Teachers, the student alone, the student with as many members as there are teachers."""

    about = "several trained teachers, then a student with as many members, each taught by one of them"
    options = PerturbedOptions
    several_teachers = True

    def networks(self, recipe: Recipe) -> list[Trained]:
        student = linked("student", recipe.student, recipe.distill, recipe.teacher)
        moved = PerturbedOptions.of(recipe).perturbation != "none"
        runs = 2 if moved else 1  # on the images, and on the perturbed ones
        return [*teachers(recipe), *alone(recipe), replace(student, passes=runs * len(recipe.all_teachers))]

    def check(self, recipe: Recipe) -> None:
        name, distill = recipe.distill.procedure, recipe.distill
        if not recipe.teachers:
            raise ValueError(f"the procedure {name} has a teacher for each member of the student: add `teachers`")
        if any(spec.weight != 1 for spec in recipe.all_teachers.values()) or distill.teaching != "average":
            raise ValueError(
                f"each teacher of the procedure {name} teaches a member of its own: leave weight and teaching out"
            )
        if distill.taps != "auto" or distill.readout is not None:
            raise ValueError(f"taps and readout are for a student without members: leave them out of the {name}")
        assert recipe.teacher is not None
        if recipe.teacher.cache is not None and PerturbedOptions.of(recipe).perturbation != "none":
            raise ValueError(
                "teacher.cache keeps what the teachers say of images as they are, and these are perturbed anew at each "
                "step: leave teacher.cache out"
            )


DESCRIPTION = PerturbedEnsemble()
