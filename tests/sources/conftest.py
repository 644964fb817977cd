"""Small data sets that the tests make."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdeploy.sources.base import ImageSet


def encoded(pixels: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    """`pixels` (`[H, W]` or `[H, W, 3]`) as an image file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def random_pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def tree(parts: tuple[str, ...] = ("train", "test"), per_class: int = 4) -> dict[str, bytes]:
    """An ImageFolder tree of 6x5 RGB images in two classes: path to content."""
    files = {}
    for p, part in enumerate(parts):
        for k, klass in enumerate(("cat", "dog")):
            for n in range(per_class):
                files[f"{part}/{klass}/{n}.png"] = encoded(random_pixels(6, 5, 3, seed=100 * p + 10 * k + n))
    return files


def write_tree(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def idx(array: NDArray[np.uint8]) -> bytes:
    """An idx file of unsigned bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def image_set(*counts: int) -> ImageSet:
    """An ImageSet of 2x2 gray images with `counts[k]` images of class k; each image's pixels tell its number."""
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int64)
    numbers = np.arange(len(labels))
    images = np.zeros((len(labels), 2, 2, 1), dtype=np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = numbers // 256, numbers % 256
    return ImageSet(images, labels, tuple(f"class {k}" for k in range(len(counts))))
