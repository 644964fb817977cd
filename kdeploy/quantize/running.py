"""A graph run on images while it is worked on: on the CPU, in batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from kdeploy.quantize.graph import input_shape

_BATCH = 32


class Running:
    """An open graph with one input.

    optimised: as an engine would run it; else as the graph says it, where Q/DQ and convolution are not one kernel.
    """

    def __init__(self, model: ModelProto, *, optimised: bool = True) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        if not optimised:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._input, _, sizes = input_shape(model.graph)
        self._batch = sizes[0] or _BATCH
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )

    def batches(self, images: NDArray[Any]) -> list[NDArray[Any]]:
        """The first output for images `[N, ...]`, as they are computed: in parts along the first dimension."""
        starts = range(0, len(images), self._batch)
        return [self._session.run(None, {self._input: images[start : start + self._batch]})[0] for start in starts]

    def run(self, images: NDArray[Any]) -> NDArray[Any]:
        """The first output for images `[N, ...]`: `[N, ...]`."""
        return np.concatenate(self.batches(images))
