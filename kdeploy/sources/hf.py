"""Data sets of the Hugging Face library `datasets`: folders on disk, or names on the Hub.

    source: hf:cats, root: ./sets      ./sets/cats: what `save_to_disk` wrote, or Parquet files, or folders of images
    source: hf:uoft-cs/cifar10         on the Hub

No code of a data set is ever run: the library, from version 4 on, has no loading scripts. Pictures are opened by
kdeploy's own decoder, from their encoded bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdeploy import events
from kdeploy.caches import cache_folder
from kdeploy.errors import Unavailable, UserError, missing_extra, nearest
from kdeploy.recipe.schema import DataSpec
from kdeploy.sources.base import ImageSet, Source
from kdeploy.sources.checks import known_options, root_path
from kdeploy.sources.decode import Picture, open_image
from kdeploy.sources.pictures import read
from kdeploy.sources.state import of_file, together

USAGE = "hf:<name>"
_OPTIONS = ("config", "image", "label")
_TEST = ("test", "validation", "valid", "val")


def load(spec: DataSpec, name: str, base: Path) -> Source:
    """The split `train`, and as test set the first of test, validation, valid and val that there is.

    `data.options`: `config`, where a set has several; `image` and `label`, the columns, where there are several of
    their kind. Raises a UserError for a set without images of one class each, Unavailable where the library is not
    installed or the Hub cannot be reached.
    """
    known_options(spec, _OPTIONS)
    try:
        import datasets
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        raise missing_extra("datasets", "hf", f"The source {spec.source}") from None
    local = None if spec.root is None else root_path(spec, base) / name
    if local is not None and not local.is_dir():
        raise UserError(f"data.root: there is no folder {local}; without data.root, {name!r} is looked for on the Hub.")
    with events.task(f"opening {spec.source}"):
        found = _open(datasets, spec, name, local)
    if not isinstance(found, dict):
        found = {"train": found}
    if "train" not in found:
        raise UserError(f"{spec.source} has the splits {', '.join(found)} and none called train.")
    test = next((split for split in _TEST if split in found), None)
    if test not in (None, "test"):
        events.decided("test set", test, f"{spec.source} has no split called test")
    files = [] if local is None else sorted(path for path in local.rglob("*") if path.is_file())
    sets = {split: _image_set(datasets, found[split], spec, split, files) for split in ("train", test) if split}
    return Source(sets["train"], None if test is None else sets[test])


def _open(datasets: Any, spec: DataSpec, name: str, local: Path | None) -> Any:
    """The set as the library opens it: one split, or a dict of them."""
    config = spec.options.get("config")
    try:
        if local is None:
            settings = datasets.DownloadConfig(local_files_only=not spec.download)
            return datasets.load_dataset(name, config, download_config=settings)
        if (local / "dataset_dict.json").is_file() or (local / "state.json").is_file():
            return datasets.load_from_disk(str(local))
        return datasets.load_dataset(str(local), config, cache_dir=str(cache_folder("huggingface")))
    except (OSError, ValueError, RuntimeError) as error:  # the library's own errors derive from these
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        if local is not None:
            raise UserError(f"{local} cannot be read as a data set: {reason}.") from None
        raise Unavailable(
            f"{spec.source} cannot be had from the Hub ({reason}); for a folder on disk, set data.root to the one "
            "that it lies in."
        ) from None


@dataclass(frozen=True)
class _Column:
    """The encoded pictures of one column; it can be sent to worker processes."""

    rows: Any
    name: str

    def open(self, number: int) -> Image.Image:
        """The picture of a row, not yet decoded."""
        cell = self.rows[number][self.name]
        return open_image(Path(cell["path"]).read_bytes() if cell["bytes"] is None else cell["bytes"])


def _image_set(datasets: Any, rows: Any, spec: DataSpec, split: str, files: list[Path]) -> ImageSet:
    where = f"{spec.source}, {split}"
    image = _column(rows, spec, "image", datasets.Image, where)
    label = _column(rows, spec, "label", datasets.ClassLabel, where)
    encoded = _Column(rows.select_columns([image]).cast_column(image, datasets.Image(decode=False)), image)
    pictures = [Picture(f"{where} image {number}", partial(encoded.open, number)) for number in range(len(rows))]
    held = [*files, *(Path(file["filename"]) for file in rows.cache_files)]
    images, kept = read(pictures, spec, together([of_file(path) for path in held], where) if held else None)
    labels, classes = _labels(list(rows[label]), rows.features[label], where)
    return ImageSet(images, labels[kept], classes)


def _column(rows: Any, spec: DataSpec, kind: str, feature: type, where: str) -> str:
    """The column that the recipe names, else the only one of this feature, or the only one called like its kind."""
    asked = spec.options.get(kind)
    if asked is not None:
        if asked not in rows.features:
            raise UserError(f"data.options.{kind}: {where} has no column {asked!r}.{nearest(asked, rows.features)}")
        return str(asked)
    found: list[str] = [name for name, each in rows.features.items() if isinstance(each, feature)] or [
        name for name in rows.features if name == kind
    ]
    if len(found) != 1:
        known = ", ".join(rows.features)
        raise UserError(
            f"{where} has {len(found) or 'no'} columns that could be the {kind}: set data.options.{kind} to one of "
            f"{known}."
        )
    return found[0]


def _labels(values: list[Any], feature: Any, where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Class numbers and names: the set's own names, else those of the texts or numbers that occur."""
    names = getattr(feature, "names", None)
    if names:
        return np.array(values, dtype=np.int64), tuple(names)
    if all(isinstance(value, int) for value in values):
        return np.array(values, dtype=np.int64), tuple(str(number) for number in range(max(values, default=0) + 1))
    raise UserError(f"{where}: labels are neither numbers nor a ClassLabel; call class_encode_column on the set first.")
