"""Mutual learning: a student and its peers, without a teacher."""

from __future__ import annotations

from kdeploy.recipe.networks import Trained, alone, linked
from kdeploy.recipe.procedures.base import Description
from kdeploy.recipe.schema import Recipe


class Mutual(Description):
    """The student alone, then the student with its peers."""

    about = "the student alone, and the student with peers that teach one another; no trained teacher"
    teacher = False

    def networks(self, recipe: Recipe) -> list[Trained]:
        peers = tuple(recipe.peers.values())
        return [*alone(recipe), linked("student", recipe.student, recipe.distill, None, beside=peers)]

    def check(self, recipe: Recipe) -> None:
        if recipe.student.checkpoint is not None and not recipe.distill.peers:
            raise ValueError(
                "a peer of the student's kind would start from the same checkpoint, and the two would have nothing to "
                "teach each other: name distill.peers"
            )


DESCRIPTION = Mutual()
