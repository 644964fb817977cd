"""Noise: a trained teacher and a student that sees Gaussian noise and nothing else."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kdeploy.recipe.procedures.base import ProcedureOptions, WithoutTrainingImages
from kdeploy.recipe.schema import Recipe
from kdeploy.recipe.schema.base import Positive


class NoiseOptions(ProcedureOptions):
    """What is drawn, how the teacher looks at it, and what becomes of the student's batch norms."""

    batches: Positive = Field(196, description="Batches of noise an epoch; the paper's, of 256, are an epoch of CIFAR.")
    teacher_statistics: Literal["batch", "running"] = Field(
        "batch",
        description="What the teacher's batch norms normalise by; batch: by the noise itself; running: by the "
        "statistics of its own training images, which noise does not have.",
    )
    evaluation_batch: int = Field(250, ge=2, description="Test images a batch, for the accuracy with batch statistics.")
    recalibration: int = Field(
        1000, ge=2, description="Unlabelled test images on which the student's statistics are measured anew."
    )
    deploy: Literal["plain", "recalibrated"] = Field(
        "plain",
        description="Whose running statistics are deployed; plain: those of noise, with which no image was ever seen; "
        "recalibrated: those of the unlabelled test images, so that the test accuracy is a transductive one.",
    )
    images: int = Field(
        1024, ge=512, description="Noise images left to calibrate int8 and to compare exported networks on, half each."
    )


class Noise(WithoutTrainingImages):
    """The teacher, the student."""

    about = "a student that learns from a trained teacher on Gaussian noise, by batch statistics; no training images"
    options = NoiseOptions

    def batches(self, recipe: Recipe) -> int:
        return NoiseOptions.of(recipe).batches


DESCRIPTION = Noise()
