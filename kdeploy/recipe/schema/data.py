"""The section `data`: images, their splits, and what is done to them in training."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from kdeploy.recipe.schema.base import Fraction, Positive, Seed, Spec


class RandAugmentSpec(Spec):
    """RandAugment with torchvision's 14 operations."""

    operations: Positive = Field(2, description="Operations that each image goes through, one after the other.")
    magnitude: int = Field(9, ge=0, le=30, description="How strong they are; 30 is the strongest.")


class AugmentSpec(Spec):
    """Random changes to training images, in this order.

    Up to cutout they are drawn for each image and epoch from the run's seed; mixup and cutmix for each batch.
    """

    crop: int = Field(4, ge=0, description="Pad by this many pixels of zeros, then crop back at random. 0: off.")
    flip: bool = Field(True, description="Mirror left and right with probability 1/2.")
    randaugment: RandAugmentSpec | None = Field(None, description="Random colours and shapes; {} for the usual ones.")
    cutout: int = Field(0, ge=0, description="Paint a square of this side over with the mean colour. 0: off.")
    mixup: float = Field(0.0, ge=0, description="Blend pairs of images, by Beta(mixup, mixup). 0: off.")
    cutmix: float = Field(
        0.0, ge=0, description="Paste a box of one image into another, by Beta(cutmix, cutmix). 0: off."
    )

    @property
    def mixes(self) -> bool:
        """Whether an image is part of one class and part of another."""
        return self.mixup > 0 or self.cutmix > 0


class NormalizeSpec(Spec):
    """Per-channel mean and standard deviation of images scaled to [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @model_validator(mode="after")
    def _same_length(self) -> NormalizeSpec:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} channels and std has {len(self.std)}")
        if any(value <= 0 for value in self.std):
            raise ValueError("every std must be above 0")
        return self


class DataSpec(Spec):
    """Where images and labels come from, and how they are split."""

    source: str = Field(
        "sklearn-digits",
        description="sklearn-digits, torchvision:<Dataset>, imagefolder, idx, hf:<name>, webdataset:<pattern>, or "
        "python:package.module:function.",
    )
    root: str | None = Field(
        None, description="Folder (or zip, for imagefolder) with the data. Relative to the recipe."
    )
    download: bool = Field(True, description="Let torchvision download a data set that is not in `root`.")
    options: dict[str, Any] = Field(default_factory=dict, description="Arguments of a python: source.")
    validation: Fraction = Field(0.1, description="Share of train that is cut off for choices, balanced over classes.")
    test: Fraction = Field(0.2, description="Share cut off for the final figure where the source has no test split.")
    split_seed: Seed = Field(0, description="Seed of the splits; the same for all seeds of a run.")
    limit: Positive | None = Field(None, description="Keep only this many training images, balanced over classes.")
    size: Positive | None = Field(None, description="Resize images to this height and width in pixels.")
    broken: Literal["stop", "skip"] = Field("stop", description="What to do about an image that cannot be read.")
    memory: bool | Literal["auto"] = Field(
        "auto",
        description="Decode all images once, or (no) at each epoch anew; auto: by what memory is free. Same batches.",
    )
    normalize: NormalizeSpec | Literal["train"] = Field(
        "train", description="Normalisation of networks that do not set their own; train: measured on the train split."
    )
    augment: AugmentSpec = Field(default_factory=lambda: AugmentSpec())

    def deciding(self, *without: str) -> dict[str, Any]:
        """What of this decides the batches, as plain JSON, by which finished work is known; `without` these fields.

        Not `memory`, which changes nothing but the time, and no augmentation that came later and is off: a run that
        was finished before there was any stays finished.
        """
        spec = self.model_dump(mode="json", exclude={"memory", *without})
        if "augment" in spec:
            fields = type(self.augment).model_fields
            used = {name for name, field in fields.items() if getattr(self.augment, name) != field.default}
            spec["augment"] = self.augment.model_dump(mode="json", include={"crop", "flip", *used})
        return spec
