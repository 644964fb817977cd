"""What is known of a procedure without torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from kdeploy.recipe.networks import Trained, linked, teachers
from kdeploy.recipe.schema import Recipe, Spec

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from Python 3.11 on


class ProcedureOptions(Spec):
    """What `distill.procedure_options` holds for one procedure."""

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """Those of a recipe, whose procedure must be the one that these options are of."""
        return cls.model_validate(recipe.distill.procedure_options)


class NoOptions(ProcedureOptions):
    """A procedure that is wholly described by the other sections of a recipe."""


class Description(ABC):
    """about: what is trained, in a line. options: what `distill.procedure_options` may hold.

    teacher: whether a trained teacher is needed, or none allowed. several_teachers: whether there may be more than one.
    training_images: whether training images may be opened. Where not, the source is asked for its test images alone, to
    measure on; there is no validation, and int8 is calibrated on images that the procedure leaves.
    """

    about: ClassVar[str]
    options: ClassVar[type[ProcedureOptions]] = NoOptions
    teacher: ClassVar[bool] = True
    several_teachers: ClassVar[bool] = False
    training_images: ClassVar[bool] = True

    @abstractmethod
    def networks(self, recipe: Recipe) -> list[Trained]:
        """The networks of a run, in the order in which they are trained."""

    def check(self, recipe: Recipe) -> None:  # noqa: B027  # most procedures take any recipe
        """Raise ValueError for a recipe whose parts do not go together in this procedure."""


class WithoutTrainingImages(Description):
    """A trained teacher and a student, and no training image: what asks for images or labels is refused."""

    training_images = False

    def networks(self, recipe: Recipe) -> list[Trained]:
        student = linked("student", recipe.student, recipe.distill, recipe.teacher)
        return [*teachers(recipe), replace(student, batches=self.batches(recipe))]

    @abstractmethod
    def batches(self, recipe: Recipe) -> int | None:
        """How many an epoch of the student's training has; None where that does not say how long it takes."""

    def check(self, recipe: Recipe) -> None:
        name, teacher, distill = recipe.distill.procedure, recipe.teacher, recipe.distill
        assert teacher is not None
        refused = {
            "teacher.train needs training images: leave it out and set teacher.checkpoint": teacher.train is not None,
            "teacher.cache holds what the teacher says of training images: leave it out": teacher.cache is not None,
            "data.normalize: train cannot be measured: give its mean and std, or set teacher.normalize": (
                recipe.data.normalize == "train" and teacher.normalize is None
            ),
            "the student alone would need training images: set distill.baseline to none": distill.baseline != "none",
            "there are no labels for cross-entropy: leave distill.cross_entropy out": bool(distill.cross_entropy),
            "a readout needs labels: leave distill.readout out": distill.readout is not None,
            "there are no validation images to choose an epoch on: set distill.select to last": (
                distill.select != "last"
            ),
            "data.limit counts them: leave it out": recipe.data.limit is not None,
            "its networks are not compiled: set distill.compile to false": distill.compile,
            "data.augment mixes training images: set mixup and cutmix to 0": recipe.data.augment.mixes,
        }
        for sentence, holds in refused.items():
            if holds:
                raise ValueError(f"the procedure {name} opens no training images, and {sentence}")
