"""Online ensemble: students of several widths behind one stem, and all of them together as the teacher."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from kdeploy import models
from kdeploy.recipe.networks import Trained, baseline_role, student_role
from kdeploy.recipe.procedures.base import Description, ProcedureOptions
from kdeploy.recipe.schema import NetworkSpec, Recipe

STEM_WIDTH = "stem_width"
"""The option of a zoo network by which its first layers keep their width while the others are narrowed."""


class OnlineOptions(ProcedureOptions):
    """What is the procedure's own; how much labels and ensemble weigh are `distill.cross_entropy` and `.weight`."""

    widths: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (0.8, 0.6, 0.4, 0.2),
        min_length=1,
        max_length=8,
        description="The further students, by their width as a share of the first one's, which is the recipe's student "
        "as it is. Default: the paper's five students.",
    )
    feature_weight: float = Field(
        0.15, ge=0, description="Weight of the features of each further student against the first one's."
    )
    stem_gradient: Literal["all", "first"] = Field(
        "all", description="Who trains the stem that all share: all students, or the first one alone."
    )


class OnlineEnsemble(Description):
    """Each student alone, then all of them together."""

    about = "students of several widths behind one stem, taught by their own ensemble; no trained teacher, all deployed"
    options = OnlineOptions
    teacher = False

    def networks(self, recipe: Recipe) -> list[Trained]:
        distill, found = recipe.distill, students(recipe)
        first, *others = (
            Trained(role, network, distill, methods=distill.methods, deployed=True) for role, network in found.items()
        )
        together = replace(first, beside=tuple(other.network for other in others))
        alone = [Trained(baseline_role(role), network, distill) for role, network in found.items()]
        return [*(alone if distill.baseline == "alone" else []), together, *others]

    def check(self, recipe: Recipe) -> None:
        student, distill = recipe.student, recipe.distill
        _require_a_stem(student.model)
        if student.checkpoint is not None or student.class_map is not None:
            raise ValueError(
                "the students of an online ensemble are trained from the start, and a checkpoint fits none but the "
                "first: leave student.checkpoint and student.class_map out"
            )
        if distill.taps != "auto" or distill.readout is not None:
            raise ValueError("taps and readout belong to a student and its teacher: an online ensemble has none")
        if distill.select != "last":
            raise ValueError(
                "the students of an online ensemble share a stem, so that no two of them can be kept from different "
                "epochs: distill.select must be last"
            )
        if distill.compile or distill.sync_batchnorm:
            raise ValueError(
                "the students of an online ensemble share modules, which are tapped: set compile and sync_batchnorm to "
                "false"
            )


DESCRIPTION = OnlineEnsemble()


def students(recipe: Recipe) -> dict[str, NetworkSpec]:
    """The students by role: student as the recipe has it, then student-2 and so on, behind a stem as wide as its."""
    full = recipe.student
    stem = {STEM_WIDTH: full.options.get(STEM_WIDTH, full.width)}
    further = [
        full.model_copy(update={"width": full.width * width, "options": {**full.options, **stem}})
        for width in OnlineOptions.of(recipe).widths
    ]
    return {student_role(number): network for number, network in enumerate([full, *further])}


def _require_a_stem(model: str) -> None:
    """Raise ValueError for a network that cannot be narrowed behind its stem; one that is not there is said later."""
    if ":" not in model and model not in models.names():
        return
    able = [name for name in models.names() if STEM_WIDTH in models.describe(name).options]
    if model not in able:
        raise ValueError(
            "the procedure online-ensemble makes the student narrower behind a stem that keeps its width, and "
            f"{model} has no such form (no option {STEM_WIDTH}): take {', '.join(able[:-1])} or {able[-1]}"
        )
