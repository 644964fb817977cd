"""What is known of a procedure without torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from kdeploy.recipe.networks import Trained
from kdeploy.recipe.schema import Recipe, Spec


class NoOptions(Spec):
    """A procedure that is wholly described by the other sections of a recipe."""


class Description(ABC):
    """about: what is trained, in a line. options: what `distill.procedure_options` may hold.

    teacher: whether a trained teacher is needed, or none allowed. several_teachers: whether there may be more than one.
    """

    about: ClassVar[str]
    options: ClassVar[type[Spec]] = NoOptions
    teacher: ClassVar[bool] = True
    several_teachers: ClassVar[bool] = False

    @abstractmethod
    def networks(self, recipe: Recipe) -> list[Trained]:
        """The networks of a run, in the order in which they are trained."""

    def check(self, recipe: Recipe) -> None:  # noqa: B027  # most procedures take any recipe
        """Raise ValueError for a recipe whose parts do not go together in this procedure."""
