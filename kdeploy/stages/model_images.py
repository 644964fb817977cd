"""The images that a model outside a run is compared, calibrated and measured on: from a folder, or random ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdeploy import events
from kdeploy.errors import UserError
from kdeploy.sources.base import ImageSet, Splits
from kdeploy.sources.decode import decode
from kdeploy.sources.imagefolder import as_picture, place
from kdeploy.sources.tree import SUFFIXES, ImageFile, image_files

CALIBRATION_SAMPLES = 256
RANDOM_SAMPLES = 16
_ENOUGH = 256
"""Real inputs that parity is to be shown on (issue 6)."""
_SEED = 0

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Files:
    """The image files of a folder, before any is decoded.

    root: as it was given; calibration, evaluation: the files of each part, with their labels; classes: the names of
    the folders, sorted, or none where the images have no labels.
    """

    root: Path
    calibration: tuple[tuple[ImageFile, int], ...]
    evaluation: tuple[tuple[ImageFile, int], ...]
    classes: tuple[str, ...]


def find(root: Path, samples: int) -> Files:
    """What lies under `root`: folders of classes (with or without train and test above them), or images side by side.

    With train and test, calibration is drawn from train and everything else is measured on test; without, 256 images
    are set aside for calibration, as many of each class, and what is left is measured on: at most `samples` of it.
    Images in one folder, or side by side, have no labels. Raises UserError where there are none, or too few to be set
    apart.
    """
    if not root.exists():
        raise UserError(f"There is no {root}; --data takes a folder of images, or a zip file of one.")
    files = image_files(root)
    if not files:
        raise UserError(f"{root} holds no images ({', '.join(SUFFIXES)}).")
    placed = place(files, root) if any(len(file.parts) > 1 for file in files) else []
    classes = tuple(sorted({folder for _, folder, _ in placed}))
    if len(classes) < 2:
        classes, placed = (), [("train", "", file) for file in files]
    labelled = [(part, file, classes.index(folder) if classes else 0) for part, folder, file in placed]
    train, test = ([(file, label) for at, file, label in labelled if at == part] for part in ("train", "test"))
    chosen = _drawn(train, CALIBRATION_SAMPLES if test else min(CALIBRATION_SAMPLES, len(train) // 2))
    taken = {id(file) for file, _ in chosen}
    rest = test or [pair for pair in train if id(pair[0]) not in taken]
    if not chosen or not rest:
        raise UserError(f"{root} holds {len(files)} images; at least 2 are needed, to calibrate on and to measure on.")
    measured = _drawn(rest, samples)
    if len(measured) < len(rest):
        events.decided("measured images", f"{len(measured)} of {len(rest)}", "--samples says how many")
    return Files(root, tuple(chosen), tuple(measured), classes)


def read(files: Files, shape: Shape, names: tuple[str, ...] | None) -> Splits:
    """Decode them as a training would, resized to `shape`: channels, height, width.

    names: the network's classes; None: they are the folders'. Raises UserError for images that cannot be read, and
    for colour images where the network takes gray ones.
    """
    channels, height, width = shape
    pairs = [*files.calibration, *files.evaluation]
    images, survey = decode([as_picture(file) for file, _ in pairs], (height, width), "stop")
    assert images is not None, "they are kept"
    if survey.shape[2] > channels:
        raise UserError(f"The images of {files.root} have colours, and the network takes one channel: --shape 1xHxW.")
    if survey.shape[2] < channels:
        images = np.repeat(images, channels, axis=3)
    labels = np.array([label for _, label in pairs], dtype=np.int64)
    whole = ImageSet(images, labels, names or files.classes)
    border = len(files.calibration)
    calibration, evaluation = whole.between(0, border), whole.between(border, len(whole))
    if len(whole) < _ENOUGH:
        events.warn(
            f"{files.root} holds {len(whole)} images: parity is shown on these, and {_ENOUGH} are the least that it "
            "should be shown on."
        )
    return Splits(calibration, evaluation, evaluation.between(0, 0))


def random(shape: Shape, names: tuple[str, ...]) -> Splits:
    """Seeded noise, where there are no images: enough to show parity, and nothing to calibrate or measure on."""
    channels, height, width = shape
    generator = np.random.default_rng(_SEED)
    pixels: NDArray[np.uint8] = generator.integers(0, 256, (RANDOM_SAMPLES, height, width, channels), dtype=np.uint8)
    noise = ImageSet(pixels, np.zeros(RANDOM_SAMPLES, dtype=np.int64), names)
    return Splits(noise, noise.between(0, 0), noise.between(0, 0))


def _drawn(pairs: list[tuple[ImageFile, int]], count: int) -> list[tuple[ImageFile, int]]:
    """`count` of them at random, as many of each class as there are, in their old order; all, if fewer."""
    from kdeploy.quantize.calibration import pick

    labels = np.array([label for _, label in pairs], dtype=np.int64)
    return [pairs[number] for number in pick(labels, count, _SEED)]
