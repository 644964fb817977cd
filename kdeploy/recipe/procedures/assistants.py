"""Assistants: a chain from teacher to student through networks of sizes between."""

from __future__ import annotations

from kdeploy.recipe.networks import (
    CHOSEN,
    Trained,
    alone,
    alone_role,
    alone_training,
    assistant_role,
    link_into,
    linked,
    teachers,
)
from kdeploy.recipe.procedures.base import Description
from kdeploy.recipe.schema import NetworkSpec, Recipe


class Assistants(Description):
    """The teacher, the student alone, the assistants, the student."""

    about = "a chain from teacher to student through networks of sizes between, each taught by the one before it"

    def networks(self, recipe: Recipe) -> list[Trained]:
        between = _between(recipe)
        last = between[-1].network if between else recipe.teacher
        student = linked("student", recipe.student, recipe.distill, last)
        return [*teachers(recipe), *alone(recipe), *between, student]


DESCRIPTION = Assistants()


def _between(recipe: Recipe) -> list[Trained]:
    """The networks between teacher and student: the assistants, each behind its own training where it has one."""
    auto = recipe.distill.path == "auto"
    found: list[Trained] = []
    before: NetworkSpec | None = recipe.teacher
    for number, assistant in enumerate(recipe.distill.assistants):
        role = assistant_role(number)
        if auto or assistant.start == "alone":
            found.append(Trained(alone_role(role), assistant, alone_training(assistant, recipe), row=False))
        if not auto:
            found.append(linked(role, assistant, link_into(assistant, recipe), before))
            before = assistant
    if auto:
        largest = recipe.distill.assistants[0]
        found.append(linked(CHOSEN, largest, link_into(largest, recipe), recipe.teacher))
    return found
