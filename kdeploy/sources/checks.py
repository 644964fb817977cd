"""What every source has to fulfil, checked before anything is split or trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kdeploy.errors import UserError, nearest
from kdeploy.recipe.schema import DataSpec
from kdeploy.sources.base import ImageSet, Rows, Source
from kdeploy.sources.pictures import Streamed


def validate(images: ImageSet, where: str) -> None:
    """Raise a UserError, beginning with `where`, unless the arrays are what `ImageSet` promises."""
    pixels, labels, classes = images.images, images.labels, images.classes
    if not isinstance(pixels, np.ndarray | Rows | Streamed) or not isinstance(labels, np.ndarray):
        raise UserError(f"{where}: images and labels must be NumPy arrays.")
    if pixels.dtype != np.uint8:
        raise UserError(f"{where}: images are {pixels.dtype}; scale them to 0..255 and convert them to uint8.")
    if len(pixels.shape) != 4 or pixels.shape[3] not in (1, 3) or 0 in pixels.shape:
        raise UserError(f"{where}: images have the shape {list(pixels.shape)}; it must be [N, H, W, C], C 1 or 3.")
    if labels.dtype != np.int64:
        raise UserError(f"{where}: labels are {labels.dtype}; convert them to int64.")
    if labels.shape != pixels.shape[:1]:
        raise UserError(f"{where}: {len(pixels)} images have labels of the shape {list(labels.shape)}.")
    if not isinstance(classes, tuple) or not all(isinstance(name, str) for name in classes):
        raise UserError(f"{where}: classes must be a tuple of strings, not {classes!r}.")
    if len(classes) < 2:
        raise UserError(f"{where}: there is one class, {list(classes)}; a classifier needs at least two.")
    if len(set(classes)) < len(classes):
        raise UserError(f"{where}: a class name occurs twice in {list(classes)}.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(classes):
        raise UserError(
            f"{where}: labels run from {low} to {high}; with {len(classes)} classes: 0 to {len(classes) - 1}."
        )


def validate_source(source: Source, where: str) -> None:
    """Raise a UserError unless both parts are sound and fit each other."""
    validate(source.train, f"{where}, train")
    if source.test is None:
        return
    validate(source.test, f"{where}, test")
    same_classes(source.train.classes, source.test.classes, where)
    train, test = source.train.images.shape[1:], source.test.images.shape[1:]
    if train != test:
        raise UserError(f"{where}: train images are {list(train)} and test images are {list(test)} (H, W, C).")


def same_classes(train: tuple[str, ...], test: tuple[str, ...], where: str) -> None:
    """Raise a UserError that names the classes that only one of train and test has."""
    if train == test:
        return
    only = [
        f"only in {part}: {', '.join(sorted(mine - other))}"
        for part, mine, other in (("train", set(train), set(test)), ("test", set(test), set(train)))
        if mine - other
    ]
    raise UserError(f"{where}: train and test have different classes ({'; '.join(only) or 'in another order'}).")


def known_options(spec: DataSpec, known: tuple[str, ...] = ()) -> None:
    """Raise a UserError for a key in `data.options` that the source does not take."""
    for key in spec.options:
        if key not in known:
            raise UserError(f"data.options: the source {spec.source} has no option {key!r}.{nearest(key, known)}")


def root_path(spec: DataSpec, base: Path) -> Path:
    """The absolute `data.root`; a UserError where it is not set or does not exist."""
    if spec.root is None:
        raise UserError(f"The source {spec.source} needs data.root, the place of its files.")
    path = base / Path(spec.root).expanduser()
    if not path.exists():
        raise UserError(f"data.root: there is no {path}.")
    return path
