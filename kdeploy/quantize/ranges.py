"""The range of each activation on real images: what calibration measures, whichever way it then takes a range."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from onnxruntime.quantization import CalibrationMethod, TensorData, TensorsData, create_calibrator

from kdeploy import events
from kdeploy.quantize.calibration import ImageReader
from kdeploy.quantize.files import save_model
from kdeploy.quantize.graph import input_shape
from kdeploy.quantize.least_squares import least_squares_range
from kdeploy.quantize.quiet import quiet
from kdeploy.quantize.schemes import Scheme

MSE = "mse"
METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
    MSE: CalibrationMethod.Percentile,  # for its histograms
}
_HISTOGRAMS = {"num_bins": 8192, "symmetric": False}
"""Bins from minus to plus the largest magnitude of the first images: 16 for each of 256 steps of a positive range."""
_MAX_STRIDE = 32
"""ONNX Runtime keeps every activation of so many images in memory when it makes histograms."""


def measure(
    model: ModelProto, images: NDArray[Any], *, method: str, operators: Collection[str], scheme: Scheme
) -> TensorsData:
    """The range of every float tensor beside these operators, as ONNX Runtime's quantiser takes it.

    images: as `calibration.check_images` lets them pass. method: of `METHODS`.
    """
    stride = math.gcd(len(images), _MAX_STRIDE)
    with tempfile.TemporaryDirectory(prefix="kdeploy-") as folder:
        path = Path(folder) / "model.onnx"
        save_model(model, path)
        with events.task("calibrating int8", len(images)) as bar, quiet():
            calibrator = create_calibrator(
                path,
                sorted(operators),
                str(Path(folder) / "augmented.onnx"),
                METHODS[method],
                extra_options=_HISTOGRAMS if method == MSE else {},
            )
            reader = ImageReader(images, input_shape(model.graph)[0], bar)
            for start in range(0, len(images), stride):
                reader.set_range(start, start + stride)
                calibrator.collect_data(reader)
            return _least_squares(calibrator, scheme) if method == MSE else calibrator.compute_data()


def copy_of(ranges: TensorsData) -> TensorsData:
    """Ranges of one's own: the quantiser changes those that it is given."""
    return TensorsData(CalibrationMethod.MinMax, {name: copy.copy(data) for name, data in ranges.items()})


def _least_squares(calibrator: Any, scheme: Scheme) -> TensorsData:
    found = {}
    for name, (counts, edges, low, high, _) in calibrator.collector.get_histogram_dict().items():
        ends = least_squares_range(
            np.asarray(counts, dtype=np.float64),
            np.asarray(edges, dtype=np.float64),
            float(low),
            float(high),
            symmetric=scheme.symmetric_activations,
        )
        found[name] = TensorData(lowest=np.float32(ends[0]), highest=np.float32(ends[1]))
    return TensorsData(CalibrationMethod.MinMax, found)
