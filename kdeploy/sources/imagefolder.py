"""A folder, or zip files, with one subfolder of images a class.

    root/train/<class>/*.jpg        train set
    root/test/<class>/*.jpg         test set; without it, one is cut off train
    root/<class>/*.jpg              instead of both: all of it is the train set

`root` may also be one zip file of such a tree, or a folder with several zip files that form it together.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdeploy import events
from kdeploy.errors import UserError
from kdeploy.recipe.schema import DataSpec
from kdeploy.sources.base import ImageSet, Source
from kdeploy.sources.checks import known_options, root_path, same_classes
from kdeploy.sources.decode import Picture, open_image
from kdeploy.sources.pictures import read
from kdeploy.sources.state import together
from kdeploy.sources.tree import SUFFIXES, ImageFile, image_files

USAGE = "imagefolder"
_PARTS = ("train", "test")


def load(spec: DataSpec, name: str, base: Path) -> Source:
    """Decode the whole tree; classes are the folders' names, sorted."""
    known_options(spec)
    root = root_path(spec, base)
    files = image_files(root)
    placed = place(files, root)
    train, test = (tuple(sorted({klass for at, klass, _ in placed if at == part})) for part in _PARTS)
    if test:
        same_classes(train, test, str(root))
    whole, kept = _read(placed, train, spec)
    tests = sum(placed[number][0] == "test" for number in kept)  # they come first
    return Source(whole.between(tests, len(whole)), whole.between(0, tests) if test else None)


def load_test(spec: DataSpec, name: str, base: Path) -> ImageSet:
    """The folder `test` alone, its subfolders' names as classes; files of train are not opened, and need not be there.

    In a zip file their names are read, as they stand in its table of contents.
    """
    known_options(spec)
    root = root_path(spec, base)
    inside = [file for file in image_files(root) if file.parts[0] == "test" and len(file.parts) > 2]
    if not inside:
        raise UserError(
            f"{root} has no test images of its own: without training images to cut them off, put them in "
            "test/<class>/<image>."
        )
    placed = [("test", file.parts[1], file) for file in inside]
    images, _ = _read(placed, tuple(sorted({klass for _, klass, _ in placed})), spec)
    return images


def _read(
    placed: list[tuple[str, str, ImageFile]], classes: tuple[str, ...], spec: DataSpec
) -> tuple[ImageSet, NDArray[np.int64]]:
    """The decoded images, and the place in `placed` of each."""
    pictures = [as_picture(file) for _, _, file in placed]
    images, kept = read(pictures, spec, together([file.state for _, _, file in placed]))
    labels = np.array([classes.index(placed[number][1]) for number in kept], dtype=np.int64)
    return ImageSet(images, labels, classes), kept


def as_picture(file: ImageFile) -> Picture:
    """A file of the tree, to be decoded later."""
    return Picture(file.where, partial(_open, file))


def _open(file: ImageFile) -> Image.Image:
    return open_image(file.read())


def place(files: list[ImageFile], root: Path) -> list[tuple[str, str, ImageFile]]:
    """The part, the class and the file of each image that belongs to train or test, sorted: test before train."""
    tops = {file.parts[0] for file in files if len(file.parts) > 1}
    if not tops:
        raise UserError(f"{root} holds no folders of images ({', '.join(SUFFIXES)}); expected train/<class>/<image>.")
    if tops.isdisjoint(_PARTS):
        return [("train", file.parts[0], file) for file in files if len(file.parts) > 1]
    if "train" not in tops:
        raise UserError(f"{root} holds a folder test but no folder train.")
    if unused := sorted(tops.difference(_PARTS)):
        events.warn(f"{root}: only train and test are used, not {', '.join(unused)}; validation is cut off train.")
    return [(file.parts[0], file.parts[1], file) for file in files if file.parts[0] in _PARTS and len(file.parts) > 2]
