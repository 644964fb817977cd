"""Unlabelled: few labels, and a teacher that labels all the rest."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from kdeploy.recipe.networks import Trained, linked, teachers
from kdeploy.recipe.procedures.base import Description, ProcedureOptions
from kdeploy.recipe.schema import Recipe, TrainSpec, part
from kdeploy.recipe.schema.base import Fraction, Positive

WEIGHTED, MIXED = "weighted", "mixed"

_BELONGS_TO = {
    "labels": (WEIGHTED, MIXED),
    "warm_up_epochs": (WEIGHTED,),
    "refresh": (WEIGHTED,),
    "neighbours": (WEIGHTED,),
    "least_alpha": (MIXED,),
    "top_k": (MIXED,),
    "top_k_accuracy": (MIXED,),
    "normalized": (MIXED,),
}
"""The variants that each option is for; the others are for all."""


class UnlabelledOptions(ProcedureOptions):
    """What `distill.procedure_options` may hold."""

    variant: Literal["plain", "weighted", "mixed"] = Field(
        "plain",
        description="What the student makes of the teacher's labels: plain takes them as they are, by any method that "
        "needs no labels; weighted gives each a weight; mixed mixes up the student's prediction as the teacher errs.",
    )
    labelled: Fraction = Field(
        0.01, description="Share of the training images of each class whose labels are used, drawn by data.split_seed."
    )
    estimation: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="Share of the labelled images that the teacher does not learn from, to see how often it is right; "
        "plain uses them as labels of the student's alone, and 0 gives the teacher all.",
    )
    alone: TrainSpec | None = Field(
        None,
        description="Training of the student alone, on the labelled images; default: as the teacher's, where that "
        "starts from nothing, else as the student's.",
    )
    labels: Literal["soft", "hard"] = Field(
        "soft", description="weighted, mixed: the teacher's probabilities, or the class that it takes for likeliest."
    )
    warm_up_epochs: int = Field(1, ge=0, description="weighted: epochs in which every weight is 1.")
    refresh: bool = Field(True, description="weighted: estimate at the beginning of each epoch, and not only once.")
    neighbours: Positive | Literal["auto"] = Field(
        "auto", description="weighted: images that a weight is estimated from; auto: the root of how many there are."
    )
    least_alpha: float = Field(
        0.6, gt=0.5, le=1, description="mixed: lower bound of the chance that the teacher is right."
    )
    top_k: int | Literal["auto"] = Field(
        5,
        description="mixed: classes among which the truth is looked for; auto: as few as hold it with the probability "
        "top_k_accuracy.",
    )
    top_k_accuracy: Fraction = Field(0.9, description="mixed: see top_k.")
    normalized: bool = Field(False, description="mixed: divide what is mixed in by top_k - 1, as the paper's theory.")

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> UnlabelledOptions:
        for name, variants in _BELONGS_TO.items():
            if self.variant not in variants and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} belongs to {' and '.join(variants)}, and the variant is {self.variant}")
        if isinstance(self.top_k, int) and self.top_k < 2:
            raise ValueError(f"top_k is {self.top_k}, and the teacher's label alone is not the truth: give 2 or more")
        if self.top_k != "auto" and self.top_k_accuracy != type(self).model_fields["top_k_accuracy"].default:
            raise ValueError("top_k_accuracy belongs to top_k: auto")
        if self.variant != "plain" and self.estimation == 0:
            raise ValueError(
                f"the variant {self.variant} learns from labelled images that the teacher has not seen how often it is "
                "right: set estimation above 0"
            )
        return self


class Unlabelled(Description):
    """The teacher and the student alone from the labelled images, the student from all."""

    about = (
        "a teacher and the student alone from few labels, and the student from all images as the teacher labels them"
    )
    options = UnlabelledOptions

    def networks(self, recipe: Recipe) -> list[Trained]:
        chosen = UnlabelledOptions.of(recipe)
        taught = chosen.labelled * (1 - chosen.estimation)
        made = [
            Trained(one.role, one.network, one.train, share=1.0 if one.train is None else taught)
            for one in teachers(recipe)
        ]
        if recipe.distill.baseline == "alone":
            made.append(Trained("alone", recipe.student, alone_training(recipe), share=chosen.labelled))
        return [*made, linked("student", recipe.student, recipe.distill, recipe.teacher)]

    def check(self, recipe: Recipe) -> None:
        chosen = UnlabelledOptions.of(recipe)
        if recipe.data.augment.mixes:
            raise ValueError(
                "data.augment mixes images, and one of two may have no label: set mixup and cutmix to 0 for the "
                "procedure unlabelled"
            )
        if recipe.distill.readout is not None:
            raise ValueError(
                "a readout wants the label of every image: leave it out for the procedure unlabelled, and set "
                "distill.cross_entropy above 0 where nothing else trains the last layer"
            )
        if chosen.alone is not None and recipe.distill.baseline == "none":
            raise ValueError("distill.baseline is none, so that the training `alone` is used by nothing: leave it out")
        _require_no_choice_on_validation(recipe)
        if chosen.variant != "plain":
            _require_likelihood(recipe, chosen.variant)
        if chosen.variant == WEIGHTED and chosen.warm_up_epochs >= recipe.distill.epochs:
            raise ValueError(
                f"warm_up_epochs is {chosen.warm_up_epochs} of {recipe.distill.epochs} epochs, so that no weight would "
                "ever be estimated: lower it, or take the variant plain"
            )


DESCRIPTION = Unlabelled()


def alone_training(recipe: Recipe) -> TrainSpec:
    """How the student is trained on the labelled images alone: as said, else as a teacher that starts from nothing."""
    assert recipe.teacher is not None
    same = recipe.teacher.train if recipe.teacher.checkpoint is None else None
    return UnlabelledOptions.of(recipe).alone or same or part(TrainSpec, recipe.distill)


def _require_no_choice_on_validation(recipe: Recipe) -> None:
    """Raise ValueError where the validation labels, thousands beside a few, would choose an epoch."""
    assert recipe.teacher is not None
    trainings = {
        "teacher.train": recipe.teacher.train,
        "distill": recipe.distill,
        "distill.procedure_options.alone": UnlabelledOptions.of(recipe).alone,
    }
    for where, spec in trainings.items():
        if spec is not None and spec.select != "last":
            raise ValueError(
                f"{where}.select is validation, and the epoch would be chosen by more labels than `labelled` allows: "
                "leave it at last; the accuracy of the epoch chosen on validation is reported beside it"
            )


def _require_likelihood(recipe: Recipe, variant: str) -> None:
    """Raise ValueError unless the recipe's method is cross-entropy with the teacher's label, as both papers have it."""
    term, *more = recipe.distill.methods
    plain = term.options.get("temperature") == 1 and not term.options.get("standardize")
    if more or term.method != "kd" or not plain:
        raise ValueError(
            f"the variant {variant} is about probabilities of labels, and its loss is kd at temperature 1: set "
            "distill.method to kd and distill.options to {temperature: 1}"
        )
