"""Few labels: which training images keep theirs, and images whose labels are taken away. Pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kdeploy.errors import UserError
from kdeploy.sources.base import ImageSet

Index = NDArray[np.int64]

HIDDEN = -1
"""In place of the label of an image whose label nobody may know; no loss takes it for a class."""


@dataclass(frozen=True)
class Labelled:
    """The training images whose labels may be used, as ascending indices.

    taught: those that the teacher learns from; estimation: those kept from it, to see how often it is right.
    """

    taught: Index
    estimation: Index

    @property
    def all(self) -> Index:
        """Both."""
        return np.sort(np.concatenate([self.taught, self.estimation]))


def draw(images: ImageSet, share: float, estimation: float, generator: np.random.Generator) -> Labelled:
    """Draw `share` of each class at random, and of those again `estimation` that the teacher is not to see.

    Of a class with n images, c = round(share * n) are labelled, and round(estimation * c) of these kept from the
    teacher, but at least one and at most c - 1; none where `estimation` is 0. From the same generator, a smaller share
    is a part of a larger one. UserError where that leaves a class without an image to learn from.
    """
    _require_enough(images, share, 1 if estimation == 0 else 2)
    taught: list[Index] = []
    kept: list[Index] = []
    for label in range(len(images.classes)):
        members = generator.permutation(np.flatnonzero(images.labels == label))
        count = round(share * len(members))
        held = 0 if estimation == 0 else min(max(1, round(estimation * count)), count - 1)
        kept.append(members[:held])
        taught.append(members[held:count])
    return Labelled(np.sort(np.concatenate(taught)), np.sort(np.concatenate(kept)))


def hide(images: ImageSet, known: Index) -> ImageSet:
    """The same images, with their labels at `known` only; all others are HIDDEN, and the true ones are not in it."""
    labels = np.full_like(images.labels, HIDDEN)
    labels[known] = images.labels[known]
    return replace(images, labels=labels)


def _require_enough(images: ImageSet, share: float, needed: int) -> None:
    """Raise UserError where the smallest class would be left with fewer than `needed` labelled images."""
    sizes = np.bincount(images.labels, minlength=len(images.classes))
    smallest = int(sizes.argmin())
    members = int(sizes[smallest])
    count = round(share * members)
    if count >= needed:
        return
    name, what = images.classes[smallest], "one to learn from" + (" and one to estimate by" if needed == 2 else "")
    if members <= needed:
        raise UserError(f"The class {name!r} has {members} training image(s); each class needs {what}, and others.")
    raise UserError(
        f"Of the {members} training images of the class {name!r}, {count} would have a label, and each class needs "
        f"{what}: set distill.procedure_options.labelled to {math.ceil(1e4 * needed / members) / 1e4:g} or more."
    )
