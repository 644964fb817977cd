"""torchvision's classification data sets, by the name of their class: torchvision:CIFAR10, torchvision:SVHN ...

The sets differ in how they are built (`train=`, `split=` or neither), in where they keep their arrays and in
their layout; what follows looks at the constructor's arguments and at the object instead of knowing each set.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdeploy import events
from kdeploy.caches import DOWNLOADS, cache_folder
from kdeploy.errors import Unavailable, UserError, nearest
from kdeploy.recipe.schema import DataSpec
from kdeploy.sources.base import Images, ImageSet, Source
from kdeploy.sources.decode import Picture
from kdeploy.sources.pictures import read
from kdeploy.sources.state import of_file, together

USAGE = "torchvision:<Dataset>"
_SPLITS = {"train": ("train", "trainval"), "test": ("test", "val")}
_OURS = ("root", "train", "download", "transform", "target_transform", "transforms", "loader")


def load(spec: DataSpec, name: str, base: Path) -> Source:
    """Build the train and (where there is one) the test set under `data.root`, by default `data` in the
    cache folder (`kdeploy.caches`).

    `data.options` are further arguments of the constructor. Raises a UserError for a name that torchvision does
    not have, data that is not there, or a set that is not for classification; Unavailable where a download fails.
    """
    dataset, takes, root = _set(spec, name, base)
    parts = {}
    for part in ("train", "test") if {"train", "split"} & set(takes) else ("train",):
        parts[part] = _part(dataset, spec, root, part)
    classes = max((images.classes for images in parts.values()), key=len)
    sets = {part: ImageSet(images.images, images.labels, classes) for part, images in parts.items()}
    return Source(sets["train"], sets.get("test"))


def load_test(spec: DataSpec, name: str, base: Path) -> ImageSet:
    """The test set alone; no image of train is opened, though a download may bring both in one archive."""
    dataset, takes, root = _set(spec, name, base)
    if not {"train", "split"} & set(takes):
        raise UserError(f"{spec.source} has no test split of its own, and training images must not be opened here.")
    if hasattr(dataset, "train_list"):  # files of which it would read every byte, to check their hashes
        dataset = type(dataset.__name__, (dataset,), {"train_list": []})
    return _part(dataset, spec, root, "test")


def _set(spec: DataSpec, name: str, base: Path) -> tuple[Any, Any, Path]:
    """The class of this name, what its constructor takes, and where its files lie; options are checked."""
    from kdeploy.torchvision_compat import import_torchvision

    dataset = _find(import_torchvision().datasets, name)
    takes = inspect.signature(dataset).parameters
    _check_options(spec, takes)
    return dataset, takes, base / Path(spec.root).expanduser() if spec.root else cache_folder(DOWNLOADS)


def _part(dataset: Callable[..., Any], spec: DataSpec, root: Path, part: str) -> ImageSet:
    """One part of a set; one without files has no root."""
    where = {"root": str(root)} if "root" in inspect.signature(dataset).parameters else {}
    return _image_set(_build(dataset, spec, root, where, part), spec, part, root if where else None)


def _find(datasets: Any, name: str) -> Callable[..., Any]:
    known = [entry for entry in datasets.__all__ if inspect.isclass(getattr(datasets, entry))]
    if name not in known:
        raise UserError(f"torchvision has no data set {name!r}.{nearest(name, known)}")
    return getattr(datasets, name)  # type: ignore[no-any-return]


def _check_options(spec: DataSpec, takes: Any) -> None:
    reserved = _OURS if "train" in takes else (*_OURS, "split")
    allowed = [key for key in takes if key not in reserved]
    for key in spec.options:
        if key not in allowed:
            raise UserError(f"data.options: {spec.source} takes no {key!r}.{nearest(key, allowed)}")


def _build(dataset: Callable[..., Any], spec: DataSpec, root: Path, where: dict[str, str], part: str) -> Any:
    """Make one part of the set, downloading it only where it is not there yet and the recipe allows it."""
    takes = inspect.signature(dataset).parameters
    arguments = {**where, **spec.options}
    try:
        return _construct(dataset, arguments, part)
    except (RuntimeError, OSError, ValueError) as error:
        absent = _first_line(error)
    if "download" not in takes or not spec.download:
        allow = "set data.download: true or " if "download" in takes else ""
        raise UserError(
            f"{spec.source} cannot be read from {root} ({absent}); {allow}put its files there by hand, as torchvision "
            "lays them out."
        )
    root.mkdir(parents=True, exist_ok=True)
    events.say(f"downloading {spec.source} to {root}")
    try:
        return _construct(dataset, {**arguments, "download": True}, part)
    except (RuntimeError, OSError, ValueError) as error:
        raise Unavailable(
            f"{spec.source} could not be downloaded to {root} ({_first_line(error)}); without a network, put its files "
            "there by hand, as torchvision lays them out."
        ) from None


def _construct(dataset: Callable[..., Any], arguments: dict[str, Any], part: str) -> Any:
    takes = inspect.signature(dataset).parameters
    if "train" in takes:
        return dataset(**arguments, train=part == "train")
    if "split" not in takes:
        return dataset(**arguments)
    first, second = _SPLITS[part]
    try:
        return dataset(**arguments, split=first)
    except ValueError:  # torchvision's answer to a split that this set does not have
        return dataset(**arguments, split=second)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")


def _image_set(dataset: Any, spec: DataSpec, part: str, root: Path | None) -> ImageSet:
    labels = getattr(dataset, "targets", getattr(dataset, "labels", None))
    if hasattr(dataset, "data") and labels is not None:
        images: Images = _channels_last(np.asarray(dataset.data))
        targets = np.asarray(labels).astype(np.int64)
    else:
        images, targets = _decoded(dataset, spec, part, root)
    names = getattr(dataset, "classes", None) or range(int(targets.max()) + 1)
    return ImageSet(images, targets, tuple(_class_name(name) for name in names))


def _channels_last(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`[N, H, W]` (MNIST), `[N, H, W, C]` (CIFAR) or `[N, C, H, W]` (SVHN, STL10) as `[N, H, W, C]`."""
    if data.ndim == 3:
        return data[..., None]
    if data.ndim == 4 and data.shape[3] not in (1, 3) and data.shape[1] in (1, 3):
        return np.ascontiguousarray(data.transpose(0, 2, 3, 1))
    return data


@dataclass(frozen=True)
class _Items:
    """The items of a set one by one, as a program that trains on it would see them."""

    dataset: Any
    source: str
    labels: NDArray[np.int64]

    def picture(self, number: int) -> Image.Image:
        """The image of an item, whose class is noted; a UserError where the item is no image with one class."""
        picture, label = self.dataset[number]
        one_class = np.issubdtype(np.asarray(label).dtype, np.integer) and not np.ndim(label)
        if not isinstance(picture, Image.Image) or not one_class:
            raise UserError(f"{self.source} is not a set of images with one class each.")
        self.labels[number] = int(label)
        return picture


def _decoded(dataset: Any, spec: DataSpec, part: str, root: Path | None) -> tuple[Images, NDArray[np.int64]]:
    """Images and labels, cached by the state of all files under `root`: which of them are this set's, nobody says."""
    items = _Items(dataset, spec.source, np.zeros(len(dataset), dtype=np.int64))
    where = f"{spec.source}, {part} image"
    pictures = [Picture(f"{where} {number}", partial(items.picture, number)) for number in range(len(dataset))]
    state = None
    if root is not None:
        files = sorted(path for path in root.rglob("*") if path.is_file())
        state = together([of_file(path) for path in files], spec.source, part, spec.options)
    images, kept = read(pictures, spec, state, items.labels)
    return images, items.labels[kept]


def _class_name(name: Any) -> str:
    """ImageNet's classes are tuples of synonyms: the first one."""
    return str(name[0]) if isinstance(name, tuple) else str(name)
