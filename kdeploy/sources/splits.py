"""Cutting data into train, validation and test: pure functions of the labels and a random generator."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdeploy import events
from kdeploy.errors import UserError
from kdeploy.recipe.schema import DataSpec
from kdeploy.sources.base import Source, Splits

Index = NDArray[np.int64]


def split(source: Source, spec: DataSpec) -> Splits:
    """Cut test (where the source has none) and validation off train, then thin train out to `spec.limit`.

    All draws come from one `numpy.random.default_rng(spec.split_seed)`, in this order: test, validation, limit.
    Each part keeps the order of the source.
    """
    generator = np.random.default_rng(spec.split_seed)
    train, test = source.train, source.test
    if test is None:
        rest, cut = stratified_cut(train.labels, train.classes, spec.test, generator)
        train, test = train.take(rest), train.take(cut)
    rest, cut = stratified_cut(train.labels, train.classes, spec.validation, generator)
    train, validation = train.take(rest), train.take(cut)
    if spec.limit is not None and spec.limit >= len(train):
        events.decided("training images", len(train), f"data.limit is {spec.limit}, and there are no more")
    elif spec.limit is not None:
        train = train.take(balanced_subset(train.labels, len(train.classes), spec.limit, generator))
    return Splits(train, validation, test)


def stratified_cut(
    labels: Index, classes: tuple[str, ...], share: float, generator: np.random.Generator
) -> tuple[Index, Index]:
    """Cut `share` of each class off at random.

    Of a class with n images, round(share * n) are cut, but at least one, and at least one remains. Returns the
    indices that remain and those cut, both ascending. A class with fewer than two images is a UserError.
    """
    cut: list[Index] = []
    for label, name in enumerate(classes):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise UserError(
                f"The class {name!r} has {len(members)} training image(s) left to split; each class needs at least "
                "one for each of train, validation and (where the source has no test split of its own) test."
            )
        count = min(max(1, round(share * len(members))), len(members) - 1)
        cut.append(generator.permutation(members)[:count])
    taken = np.sort(np.concatenate(cut))
    return np.setdiff1d(np.arange(len(labels)), taken, assume_unique=True), taken


def balanced_subset(labels: Index, classes: int, limit: int, generator: np.random.Generator) -> Index:
    """Ascending indices of `limit` images, drawn at random, as many of each class as its images allow.

    What a small class cannot give is shared among the others; what does not divide evenly goes to the first
    classes. A limit below the number of classes is a UserError.
    """
    if limit < classes:
        raise UserError(f"data.limit is {limit}, fewer than one image for each of the {classes} classes.")
    available = np.bincount(labels, minlength=classes)
    quota = np.zeros(classes, dtype=np.int64)
    while (missing := min(limit, len(labels)) - int(quota.sum())) > 0:
        open_classes = np.flatnonzero(quota < available)
        each = max(1, missing // len(open_classes))
        for label in open_classes[:missing]:
            quota[label] += min(each, available[label] - quota[label])
    chosen = [generator.permutation(np.flatnonzero(labels == label))[: quota[label]] for label in range(classes)]
    return np.sort(np.concatenate(chosen))
