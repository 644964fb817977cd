"""Test images that go to a device with a run's engines: the device has no data set, and need not know whose it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kdeploy.sources.base import ImageSet

FILE = "kdeploy-test-images.npz"
"""In the folder that is measured, or beside the file that is."""


def beside(artifact: Path, *, is_folder: bool) -> Path:
    """Where the images of an artefact lie, if it was sent with any."""
    return (artifact if is_folder else artifact.parent) / FILE


def write(path: Path, data: ImageSet) -> None:
    """Write all images and labels, uint8 `[N, H, W, C]` and int64 `[N]`, and the names of the classes."""
    with path.open("wb") as stream:
        np.savez(stream, images=data.images[:], labels=data.labels, classes=np.array(data.classes, dtype=np.str_))


def read(path: Path) -> ImageSet:
    """What `write` wrote; nothing in it is unpickled."""
    with np.load(path, allow_pickle=False) as archive:
        return ImageSet(archive["images"], archive["labels"], tuple(map(str, archive["classes"])))
