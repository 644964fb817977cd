"""Data-free: a trained teacher, images made from it, and a student that sees nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from kdeploy.recipe.procedures.base import ProcedureOptions, WithoutTrainingImages
from kdeploy.recipe.schema import Recipe, Spec
from kdeploy.recipe.schema.base import Positive


class DeepInversionOptions(Spec):
    """How pixels are optimised; the defaults are the authors' for CIFAR-10."""

    iterations: Positive = Field(2000, description="Steps that a batch of images takes.")
    lr: float = Field(0.05, gt=0, description="Adam's learning rate, of images normalised for the teacher.")
    jitter: int = Field(2, ge=0, description="Pixels by which images are shifted at random, at most.")
    bn: float = Field(10.0, ge=0, description="Weight of the distance to the teacher's statistics.")
    oh: float = Field(1.0, ge=0, description="Weight of cross-entropy with the class that an image should show.")
    tv: float = Field(2.5e-5, ge=0, description="Weight of the total variation.")
    l2: float = Field(0.0, ge=0, description="Weight of the norm of the images.")


class DaflOptions(Spec):
    """How a generator is trained with the student; the weights are the authors' for CIFAR-10."""

    batches: Positive = Field(120, description="Batches an epoch, each of new images.")
    latent: Positive = Field(1000, description="Numbers that an image is made from.")
    oh: float = Field(0.05, ge=0, description="Weight of cross-entropy with the class that the teacher names.")
    balance: float = Field(2.171, ge=0, description="Weight of the balance between classes; 5 in units of log10.")
    activation: float = Field(0.01, ge=0, description="Weight of how much the teacher is excited.")


class FastOptions(Spec):
    """How a generator is made quick to adapt; the weights and rates are the authors' for CIFAR-10."""

    batches: Positive = Field(400, description="Batches an epoch, each a step of the student or a round of new images.")
    latent: Positive = Field(256, description="Numbers that an image is made from.")
    iterations: Positive = Field(5, description="Steps that a copy of the generator takes for a batch of images.")
    lr: float = Field(0.002, gt=0, description="Adam's learning rate of the copy in these steps.")
    latent_lr: float = Field(0.01, gt=0, description="That of the latents.")
    warmup: Positive = Field(20, description="Batches of images made before the student begins.")
    every: Positive = Field(400, description="Steps of the student for each batch of images after that.")
    bn: float = Field(10.0, ge=0, description="Weight of the distance to the teacher's statistics.")
    oh: float = Field(0.5, ge=0, description="Weight of cross-entropy with the class that an image should show.")
    adversarial: float = Field(1.0, ge=0, description="Weight of what surprises the student.")


_WAYS: dict[str, type[Spec]] = {"deepinversion": DeepInversionOptions, "dafl": DaflOptions, "fast": FastOptions}


def _told(way: str) -> str:
    """What one way can be told, for the list of options."""
    defaults = (f"{name} {field.default:g}" for name, field in _WAYS[way].model_fields.items())
    return f"What {way} is told, where that is the synthesis; by itself: {', '.join(defaults)}."


class DataFreeOptions(ProcedureOptions):
    """How the images are made."""

    synthesis: Literal["deepinversion", "dafl", "fast"] = Field(
        "fast",
        description="deepinversion: the pixels themselves, before the student; dafl: a generator, together with the "
        "student; fast: a generator that learns to be learnt from in a few steps.",
    )
    images: int = Field(
        2048,
        ge=512,
        description="Images made (deepinversion), kept to train on, the oldest replaced (fast), or made at the end "
        "(dafl); they are left to calibrate int8 and to compare exported networks on, half each.",
    )
    deepinversion: DeepInversionOptions | None = Field(None, description=_told("deepinversion"))
    dafl: DaflOptions | None = Field(None, description=_told("dafl"))
    fast: FastOptions | None = Field(None, description=_told("fast"))

    @model_validator(mode="before")
    @classmethod
    def _chosen(cls, given: Any) -> Any:
        """The chosen way with nothing left to a default; what another way is told is refused."""
        if not isinstance(given, Mapping) or given.get("synthesis", "fast") not in _WAYS:
            return given
        synthesis = given.get("synthesis", "fast")
        others = [way for way in _WAYS if way != synthesis and given.get(way) is not None]
        if others:
            raise ValueError(f"the synthesis is {synthesis}: leave {others[0]} out, or set synthesis to {others[0]}")
        return {**given, synthesis: given.get(synthesis) or {}}


class DataFree(WithoutTrainingImages):
    """The teacher, the student."""

    about = "a student that learns from a trained teacher on images made from that teacher; no training images"
    options = DataFreeOptions

    def batches(self, recipe: Recipe) -> int | None:
        return None  # a batch of the student's is the smaller part of the work

    def check(self, recipe: Recipe) -> None:
        super().check(recipe)
        synthesis = DataFreeOptions.of(recipe).synthesis
        if synthesis != "deepinversion" and recipe.distill.optimizer == "sgd":
            raise ValueError(
                f"in {synthesis} one optimiser steps the student and the generator, for which sgd is not made: set "
                "distill.optimizer to adam, with an lr such as 0.002"
            )


DESCRIPTION = DataFree()
