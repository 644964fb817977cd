"""How one network is trained: the fields of `teacher.train`, and of `distill` beside what is its own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from kdeploy.recipe.schema.base import Positive, Spec

INDIFFERENT = frozenset({"checkpoint_steps"})
"""Fields of a training that do not decide its weights: not part of what a finished one is known by."""


class TrainSpec(Spec):
    """How one network is trained."""

    epochs: Positive = 20
    batch: Positive = 64
    optimizer: Literal["sgd", "adam", "adamw"] = Field(
        "sgd", description="adam adds weight_decay to the gradient, adamw takes it off the weight."
    )
    lr: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(5e-4, ge=0)
    schedule: Literal["cosine", "multistep", "constant"] = "cosine"
    milestones: tuple[int, ...] = Field((), description="multistep: multiply lr by gamma after each of these epochs.")
    gamma: float = Field(0.1, gt=0, le=1)
    warmup_epochs: float = Field(0.0, ge=0, description="Rise linearly from 0 to lr over this many epochs.")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 autocast where the hardware multiplies it, else float32."
    )
    channels_last: bool | Literal["auto"] = "auto"
    select: Literal["last", "validation"] = Field(
        "last", description="Which epoch's weights are the result; both accuracies are reported."
    )
    nonfinite: Literal["stop", "skip"] = Field(
        "stop",
        description="At a loss or gradient that is NaN or infinite: end, or leave such steps out, counted.",
    )
    checkpoint_steps: Positive | None = Field(
        None,
        description="Checkpoint each epoch and every so many steps; default: as often as costs 0.5 % of time.",
    )
    compile: bool = Field(
        False,
        description="Train through torch.compile: up to a minute first, then faster steps on some machines. For labels "
        "and methods on logits; needs a C++ compiler on a CPU.",
    )
    sync_batchnorm: bool = Field(
        False,
        description="Batch norm sees the whole batch where several GPUs have a part of it each, and not its own part.",
    )

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> TrainSpec:
        if self.schedule == "multistep" and not self.milestones:
            raise ValueError("the schedule multistep needs milestones, such as [150, 180, 210]")
        if self.schedule != "multistep" and self.milestones:
            raise ValueError(f"milestones belong to the schedule multistep, and this one is {self.schedule}")
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("nesterov needs the optimizer sgd with a momentum above 0")
        return self
