"""The networks of a recipe: where they come from, and what a teacher has beside that."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from kdeploy.recipe.schema.base import Positive, Seed, Spec
from kdeploy.recipe.schema.data import NormalizeSpec
from kdeploy.recipe.schema.training import TrainSpec


class RenameSpec(Spec):
    """A rule that renames the keys of a checkpoint: a regular expression and its replacement."""

    pattern: str
    replace: str


class NetworkSpec(Spec):
    """A network: a zoo name, torchvision:NAME, timm:NAME or python:package.module:factory."""

    model: str
    width: float = Field(1.0, gt=0, description="Multiplies the channels of every layer of a zoo network.")
    options: dict[str, Any] = Field(default_factory=dict, description="Further arguments of the model's factory.")
    normalize: NormalizeSpec | None = Field(None, description="This network's own normalisation; default: the data's.")
    checkpoint: str | None = Field(None, description="Weights to start from: safetensors, or a torch.save state dict.")
    origin: str | None = Field(None, description="Whose checkpoint it is and where it is to be had.")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="What the checkpoint must hash to.")
    rename: tuple[RenameSpec, ...] = Field((), description="Rules applied in order to the checkpoint's keys.")
    class_map: tuple[int, ...] | None = Field(
        None, description="class_map[k] is the network's output for the data's class k, where the orders differ."
    )


class CacheSpec(Spec):
    """The teacher's outputs kept on disk: it runs once for each view, and not at every step."""

    views: Positive = Field(8, description="Augmented views of each image; epoch e shows view e modulo this.")
    seed: Seed | None = Field(
        0, description="What the views are drawn from, so that --seeds shares one cache; null: the run's seed."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="auto: bfloat16 where the teacher computes in it, which loses nothing, else float16."
    )
    folder: str | None = Field(None, description="Where it is kept; default: `kdeploy cache` says where.")


class TeacherSpec(NetworkSpec):
    """The teacher: trained here, taken from a checkpoint, or both (fine-tuned)."""

    train: TrainSpec | None = Field(
        None, description="Train (or fine-tune) it; without it the checkpoint is used as is."
    )
    seed: Seed | None = Field(
        0, description="The teacher's own seed, so that --seeds shares one teacher; null: the run's."
    )
    cache: CacheSpec | None = Field(None, description="Run the teacher once for each view, and not at every step.")
    weight: float = Field(1.0, gt=0, description="Several teachers: its part beside that of the others.")

    @model_validator(mode="after")
    def _has_weights(self) -> TeacherSpec:
        if self.train is None and self.checkpoint is None and not self.model.startswith(("torchvision:", "timm:")):
            raise ValueError("the teacher needs `train`, or `checkpoint`, or both")
        return self
