"""Images on which the ranges of activations are measured, always as the model takes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper
from onnxruntime.quantization import CalibrationDataReader

from kdeploy.errors import UserError
from kdeploy.events import Progress
from kdeploy.quantize.graph import input_shape


class ImageReader(CalibrationDataReader):  # type: ignore[misc]
    """Gives ONNX Runtime's calibration one image after the other, and moves a bar on.

    images: `[N, ...]`, shaped as the model's input: uint8 `[N, H, W, C]` where preprocessing is in the graph, else
    preprocessed float32 `[N, C, H, W]`. One at a time, so that a graph with a fixed batch of 1 is calibrated too.
    """

    def __init__(self, images: NDArray[Any], input_name: str, bar: Progress) -> None:
        self._images = images
        self._input_name = input_name
        self._bar = bar
        self._range = iter(range(len(images)))

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        return iter(self.get_next, None)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The next image as the model's only input; None at the end."""
        index = next(self._range, None)
        if index is None:
            return None
        self._bar.advance()
        return {self._input_name: self._images[index : index + 1]}

    def set_range(self, start_index: int, end_index: int) -> None:
        """Go on with these images only: histograms are collected a part at a time, to bound memory."""
        self._range = iter(range(start_index, end_index))


def check_images(images: NDArray[Any], model: ModelProto) -> None:
    """Refuse, by name, what would calibrate to nonsense: no images, a wrong type or shape, NaN, one single value.

    Raises UserError.
    """
    name, element_type, sizes = input_shape(model.graph)
    dtype = helper.tensor_dtype_to_np_dtype(element_type)
    if len(images) == 0:
        raise UserError("The calibration set is empty; int8 needs real images to measure its ranges on.")
    fits = images.ndim == len(sizes) and all(
        wanted in (None, found) for wanted, found in zip(sizes[1:], images.shape[1:], strict=True)
    )
    if images.dtype != dtype or not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in sizes[1:])
        raise UserError(
            f"The calibration set is {images.dtype} {list(images.shape)}, and the model's input {name!r} takes "
            f"{dtype} [images, {wanted}]."
        )
    if not np.isfinite(images).all():
        broken = (~np.isfinite(images.reshape(len(images), -1))).any(axis=1)
        raise UserError(f"{int(broken.sum())} of {len(images)} calibration images hold NaN or infinity.")
    if images.min() == images.max():
        raise UserError(f"Every value of the {len(images)} calibration images is {images.flat[0]}; they show nothing.")


def check_classes(labels: NDArray[np.int64], classes: Sequence[str]) -> None:
    """Refuse images of a single class: what the others do to activations was never seen.

    Raises UserError that names the class.
    """
    shown = np.unique(labels)
    if len(shown) == 1 and len(classes) > 1:
        raise UserError(
            f"All {len(labels)} calibration images are of the class {classes[int(shown[0])]!r}, one of {len(classes)}; "
            "raise calibration.samples, or give training images of more classes."
        )


def pick(labels: NDArray[np.int64], samples: int, seed: int) -> NDArray[np.int64]:
    """Ascending indices of `samples` images drawn at random, as many of each class as there are; all, if fewer.

    Every class gives its first image before any gives its second, in an order drawn from `seed`.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels[order] == label)
        rank[members] = np.arange(len(members))
    return np.sort(order[np.argsort(rank, kind="stable")[:samples]])
