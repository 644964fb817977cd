"""MNIST-style files: one of images and one of labels for train and test each, gzipped or not.

The IDX format (LeCun, Cortes, Burges, "The MNIST database of handwritten digits"): two zero bytes, the type of
the values, the number of dimensions, each dimension as a big-endian 32-bit integer, then the values.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from kdeploy import events
from kdeploy.errors import UserError
from kdeploy.machine import memory_bytes
from kdeploy.recipe.schema import DataSpec
from kdeploy.sources.base import ImageSet, Source
from kdeploy.sources.checks import known_options, root_path

USAGE = "idx"
_PARTS = {"train": "train", "test": "test|t10k"}
_DIMENSIONS = {"images": 3, "labels": 1}
_UINT8 = 0x08
_DEFLATE_RATIO = 1032  # deflate cannot shrink anything further


def load(spec: DataSpec, name: str, base: Path) -> Source:
    """Gray images `[N, H, W, 1]`; the labels that occur in train, in ascending order, become classes 0, 1, ...

    A class is named by its label in the file, or by `data.options.classes`, a list in the same order.
    """
    root = _root(spec, base)
    arrays = {}
    with events.task("reading idx files", len(_PARTS)) as bar:
        for part in _PARTS:
            arrays[part] = _read_part(root, part)
            bar.advance()
    if arrays["train"] is None:
        raise UserError(f"{root} holds no file like train-images-idx3-ubyte or train-images-idx3-ubyte.gz.")
    values = np.unique(arrays["train"][1])
    classes = _classes(spec, [str(value) for value in values])
    train = _image_set(arrays["train"], values, classes, root)
    return Source(train, None if arrays["test"] is None else _image_set(arrays["test"], values, classes, root))


def load_test(spec: DataSpec, name: str, base: Path) -> ImageSet:
    """The test files alone; the labels that occur in them become classes, and no file of train is opened."""
    root = _root(spec, base)
    with events.task("reading idx files", 1) as bar:
        arrays = _read_part(root, "test")
        bar.advance()
    if arrays is None:
        raise UserError(f"{root} holds no file like t10k-images-idx3-ubyte or t10k-images-idx3-ubyte.gz.")
    values = np.unique(arrays[1])
    return _image_set(arrays, values, _classes(spec, [str(value) for value in values]), root)


def _root(spec: DataSpec, base: Path) -> Path:
    """The folder with the files."""
    known_options(spec, ("classes",))
    root = root_path(spec, base)
    if not root.is_dir():
        raise UserError(f"data.root: {root} is not a folder; the source idx wants the folder with the idx files.")
    return root


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array of an idx file of unsigned bytes, gzipped where the name ends in .gz.

    Raises a UserError for another type or number of dimensions, and where the file holds fewer or more values
    than its header declares, before memory is taken for more than the file can hold.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            return _read(cast("BinaryIO", stream), path, dimensions)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is broken or was cut off: {error}.") from None


def _read(stream: BinaryIO, path: Path, dimensions: int) -> NDArray[np.uint8]:
    header = stream.read(4 + 4 * dimensions)
    if header[:4] != bytes((0, 0, _UINT8, dimensions)) or len(header) < 4 + 4 * dimensions:
        raise UserError(
            f"{path} is not an idx{dimensions} file of unsigned bytes: it begins with {header[:4].hex() or 'nothing'}, "
            f"not 000008{dimensions:02x}."
        )
    shape = tuple(int(size) for size in np.frombuffer(header, dtype=">u4", offset=4))
    declared = math.prod(shape)
    possible = path.stat().st_size * (_DEFLATE_RATIO if path.suffix == ".gz" else 1)
    if declared == 0 or declared > min(possible, memory_bytes() // 2):
        raise UserError(
            f"{path} declares {'x'.join(map(str, shape))} bytes, which its file or this machine cannot hold."
        )
    content = stream.read(declared)
    if len(content) < declared or stream.read(1):
        raise UserError(
            f"{path} declares {declared} bytes ({'x'.join(map(str, shape))}) and holds {_amount(content, declared)}."
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _amount(content: bytes, declared: int) -> str:
    return f"{len(content)}" if len(content) < declared else "more"


def _read_part(root: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8], str] | None:
    images, labels = (_find(root, part, kind) for kind in _DIMENSIONS)
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        missing = "images" if images is None else "labels"
        raise UserError(f"{root} holds {(images or labels).name} but no {missing} for it.")  # type: ignore[union-attr]
    pixels, values = read_idx(images, 3), read_idx(labels, 1)
    if len(pixels) != len(values):
        raise UserError(f"{images} holds {len(pixels)} images and {labels.name} holds {len(values)} labels.")
    return pixels, values, labels.name


def _find(root: Path, part: str, kind: str) -> Path | None:
    """The one file of a part and kind; of the same name with and without .gz, the one without."""
    pattern = re.compile(
        rf"(?=(.*[^a-z])?({_PARTS[part]})).*{kind}.*idx{_DIMENSIONS[kind]}-ubyte(\.gz)?", re.IGNORECASE
    )
    found = {
        path.name.removesuffix(".gz"): path
        for path in sorted(root.iterdir(), reverse=True)
        if pattern.fullmatch(path.name)
    }
    if len(found) > 1:
        raise UserError(
            f"{root} holds {part} {kind} of several sets ({', '.join(sorted(found))}); keep one in a folder."
        )
    return next(iter(found.values()), None)


def _classes(spec: DataSpec, labels: list[str]) -> tuple[str, ...]:
    given = spec.options.get("classes", labels)
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise UserError(f"data.options.classes must be a list of strings, not {given!r}.")
    if len(given) != len(labels):
        raise UserError(
            f"data.options.classes names {len(given)} classes; the files have {len(labels)}: {', '.join(labels)}."
        )
    return tuple(given)


def _image_set(
    arrays: tuple[NDArray[np.uint8], NDArray[np.uint8], str],
    values: NDArray[np.uint8],
    classes: tuple[str, ...],
    root: Path,
) -> ImageSet:
    pixels, raw, name = arrays
    if strange := np.setdiff1d(raw, values).tolist():
        raise UserError(f"{root / name} holds the labels {strange}, which train does not have.")
    return ImageSet(pixels[..., None], np.searchsorted(values, raw).astype(np.int64), classes)
