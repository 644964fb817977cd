"""Offline: a trained teacher, or several, and a student."""

from __future__ import annotations

from kdeploy.recipe.networks import Trained, alone, linked, teachers
from kdeploy.recipe.procedures.base import Description
from kdeploy.recipe.schema import Recipe


class Offline(Description):
    """Teachers, the student alone, the student."""

    about = "a trained teacher, then the student alone and the same student distilled"
    several_teachers = True

    def networks(self, recipe: Recipe) -> list[Trained]:
        return [*teachers(recipe), *alone(recipe), linked("student", recipe.student, recipe.distill, recipe.teacher)]


DESCRIPTION = Offline()
