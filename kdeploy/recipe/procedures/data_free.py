"""Data-free: a trained teacher, images made from it, and a student that sees nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from kdeploy.recipe.procedures.base import WithoutTrainingImages
from kdeploy.recipe.schema import Recipe, Spec
from kdeploy.recipe.schema.base import Positive

_OWN: dict[str, dict[str, Any]] = {
    "deepinversion": {"iterations": 2000, "lr": 0.05, "jitter": 2},
    "dafl": {"batches": 120, "latent": 1000},
    "fast": {
        "batches": 400,
        "latent": 256,
        "iterations": 5,
        "lr": 0.002,
        "latent_lr": 0.01,
        "warmup": 20,
        "every": 400,
    },
}
"""What each way of making images has to be told, with its paper's values for CIFAR-10."""
WEIGHTS: dict[str, dict[str, float]] = {
    "deepinversion": {"bn": 10.0, "oh": 1.0, "tv": 2.5e-5, "l2": 0.0},
    "dafl": {"oh": 0.05, "balance": 5.0, "activation": 0.01},
    "fast": {"bn": 10.0, "oh": 0.5, "adversarial": 1.0},
}
"""The terms of what the images minimise, each with its paper's weight for CIFAR-10."""


class DataFreeOptions(Spec):
    """How the images are made. What a way of making them does not use is null, and refused where it is set."""

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
    weights: dict[str, float] = Field(
        default_factory=dict,
        description="Weights of the terms that the images minimise: bn, oh, tv, l2 (deepinversion); oh, balance, "
        "activation (dafl); bn, oh, adversarial (fast); default: the paper's.",
    )
    batches: Positive | None = Field(None, description="dafl, fast: batches an epoch.")
    latent: Positive | None = Field(None, description="dafl, fast: numbers that the generator makes an image from.")
    iterations: Positive | None = Field(
        None, description="Steps that pixels (deepinversion), or generator and latents (fast), take for a batch."
    )
    lr: float | None = Field(None, gt=0, description="deepinversion, fast: Adam's learning rate in these steps.")
    latent_lr: float | None = Field(None, gt=0, description="fast: that of the latents.")
    jitter: int | None = Field(None, ge=0, description="deepinversion: pixels that images are shifted by at random.")
    warmup: Positive | None = Field(None, description="fast: batches of images made before the student begins.")
    every: Positive | None = Field(None, description="fast: steps of the student for each new batch of images.")

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, given: Any) -> Any:
        """What the chosen way uses, with nothing left to a default; what it does not use is refused."""
        if not isinstance(given, Mapping):
            return given
        synthesis = given.get("synthesis", "fast")
        if synthesis not in _OWN:
            return given
        own = {key: value for key, value in given.items() if value is not None}
        strange = [key for key in own if key not in (*_OWN[synthesis], "synthesis", "images", "weights")]
        known = [key for each in _OWN.values() for key in each]
        if strange and strange[0] in known:
            raise ValueError(f"{strange[0]} is nothing that {synthesis} uses: leave it out")
        weights = own.get("weights", {})
        unknown = [key for key in weights if key not in WEIGHTS[synthesis]] if isinstance(weights, Mapping) else []
        if unknown:
            raise ValueError(f"{synthesis} has no term {unknown[0]!r}: its terms are {', '.join(WEIGHTS[synthesis])}")
        if isinstance(weights, Mapping):
            own["weights"] = {**WEIGHTS[synthesis], **weights}
        return {**_OWN[synthesis], **own}


def options_of(recipe: Recipe) -> DataFreeOptions:
    """The options of a recipe of this procedure."""
    return DataFreeOptions.model_validate(recipe.distill.procedure_options)


class DataFree(WithoutTrainingImages):
    """The teacher, the student."""

    about = "a student that learns from a trained teacher on images made from that teacher; no training images"
    options = DataFreeOptions

    def batches(self, recipe: Recipe) -> int | None:
        return None  # a batch of the student's is the smaller part of the work

    def check(self, recipe: Recipe) -> None:
        super().check(recipe)
        synthesis = options_of(recipe).synthesis
        if synthesis != "deepinversion" and recipe.distill.optimizer == "sgd":
            raise ValueError(
                f"in {synthesis} one optimiser steps the student and the generator, for which sgd is not made: set "
                "distill.optimizer to adam, with an lr such as 0.002"
            )


DESCRIPTION = DataFree()
