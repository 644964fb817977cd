"""What one inference of an artefact takes, and the arrays to feed it with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdeploy.engines.base import Manifest, Preprocessing
from kdeploy.engines.onnxruntime import OnnxSession
from kdeploy.errors import UserError
from kdeploy.runtime.preprocess import preprocess

_MAX_KINDS = 16
_MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Layout:
    """The input of a network: one sample's shape in the file's own order, and its type.

    batch: the one batch size that the file takes, None: any. preprocessing: how an image gets there, None where
    nothing says so (a file from outside).
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    batch: int | None = None
    preprocessing: Preprocessing | None = None

    @property
    def gives_probabilities(self) -> bool:
        """Whether what comes out went through a softmax; logits where preprocessing is left outside, with it."""
        return self.preprocessing is not None and self.preprocessing.in_graph

    def prepare(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """Images, uint8 `[B, H, W, C]`, as the network takes them."""
        if self.preprocessing is None:
            raise ValueError("nothing says how an image becomes this network's input")
        return np.ascontiguousarray(images) if self.preprocessing.in_graph else preprocess(images, self.preprocessing)

    def random(self, batch: int, generator: np.random.Generator) -> NDArray[Any]:
        """Noise: any value of an integer type, a standard normal distribution for floats."""
        shape = (batch, *self.shape)
        if self.dtype.kind in "iu":
            limits = np.iinfo(self.dtype)
            return generator.integers(limits.min, limits.max, shape, dtype=self.dtype, endpoint=True)
        return generator.standard_normal(shape).astype(self.dtype)


def layout_of_manifest(manifest: Manifest) -> Layout:
    """The input that an engine's manifest declares."""
    wanted = manifest.preprocessing
    channels_last = (wanted.height, wanted.width, wanted.channels)
    channels_first = (wanted.channels, wanted.height, wanted.width)
    return Layout(
        shape=channels_last if wanted.in_graph else channels_first,
        dtype=np.dtype(manifest.input_dtype),
        preprocessing=wanted,
    )


def layout_of_file(session: OnnxSession, path: Path) -> Layout:
    """The input that an ONNX file declares. Raises UserError where a size other than the batch is left open."""
    if not session.input_shape:
        raise UserError(f"{path} takes a single number; kdeploy measures networks whose first dimension is the batch.")
    batch, *sizes = session.input_shape
    fixed = [size for size in sizes if size is not None]
    if len(fixed) < len(sizes):
        shown = ", ".join("?" if size is None else str(size) for size in session.input_shape)
        raise UserError(
            f"{path} leaves sizes of its input {session.input_name!r} open: [{shown}]. Only the batch may be; "
            "export it with fixed sizes."
        )
    return Layout(shape=tuple(fixed), dtype=session.input_dtype, batch=batch)


def inputs_for(
    layout: Layout, batch: int, images: NDArray[np.uint8] | None, *, kinds: int = _MAX_KINDS, seed: int = 0
) -> list[NDArray[Any]]:
    """Several different batches to measure with: real images if there are any, else seeded noise.

    Up to `kinds` different ones, and no more than 64 MiB of them where that allows more than one.
    """
    size_bytes = batch * int(np.prod(layout.shape)) * layout.dtype.itemsize
    kinds = max(1, min(kinds, _MAX_BYTES // max(size_bytes, 1)))
    if images is None:
        generator = np.random.default_rng(seed)
        return [layout.random(batch, generator) for _ in range(kinds)]
    every = np.arange(batch * kinds) % len(images)
    return [layout.prepare(images[index]) for index in every.reshape(kinds, batch)]
