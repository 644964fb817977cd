"""Static int8: Q/DQ pairs around every product, with ranges measured on real images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from kdeploy.errors import UserError, nearest
from kdeploy.quantize import boundaries, ranges, rewrites
from kdeploy.quantize.bias_correction import correct_biases, give_biases
from kdeploy.quantize.calibration import check_images
from kdeploy.quantize.files import first_line, load_model, opset_version, save_model
from kdeploy.quantize.graph import input_shape, producers
from kdeploy.quantize.hard_activations import absorb_factors, lay_open
from kdeploy.quantize.placement import Quantizable, operators_of, write_pairs
from kdeploy.quantize.schemes import Scheme

_PER_CHANNEL_OPSET = 13
_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True)
class QuantizedModel:
    """An int8 graph on disk."""

    path: Path
    sha256: str
    scheme: Scheme
    opset: int
    quantized: dict[str, int]
    """Operators that take int8, by type, with their count."""
    kept_float: dict[str, int]
    """Operators that stay float32."""


@dataclass(frozen=True)
class Calibrated:
    """A float32 graph, rewritten and with the ranges of its activations: int8 can be made of it many times."""

    source: ModelProto
    """As it was read."""
    graph: Quantizable
    images: NDArray[Any]
    corrects_biases: bool

    @property
    def float32(self) -> ModelProto:
        """The rewritten graph that the layers' names refer to."""
        return self.graph.model

    @property
    def layers(self) -> list[str]:
        """Names of the nodes that int8 changes the values of, in the order in which they are computed."""
        return self.graph.layers()

    def int8(self, *, keep_float: frozenset[str] = frozenset()) -> ModelProto:
        """The Q/DQ graph. keep_float: names of layers that stay float32."""
        written = write_pairs(self.graph, keep_float)
        if self.corrects_biases:
            written = correct_biases(written, self.graph.model, self.images)
        logits_float = rewrites.keep_logits_float(written, set(self.graph.tail))
        finished = rewrites.drop_unused(rewrites.strip_value_info(absorb_factors(logits_float)))
        del finished.metadata_props[:]
        finished.metadata_props.extend(self.source.metadata_props)
        return finished


def quantize(
    model: Path,
    target: Path,
    *,
    scheme: Scheme,
    images: NDArray[Any],
    method: str = "minmax",
    bias_correction: bool = False,
) -> QuantizedModel:
    """Write an int8 Q/DQ version of the float32 graph `model` to `target`; arguments and errors as in `calibrate`."""
    calibrated = calibrate(model, scheme=scheme, images=images, method=method, bias_correction=bias_correction)
    return write(calibrated.int8(), target, scheme)


def calibrate(
    model: Path, *, scheme: Scheme, images: NDArray[Any], method: str = "minmax", bias_correction: bool = False
) -> Calibrated:
    """Measure what int8 needs to know of the float32 graph `model`.

    The graph is rewritten first (`rewrites.prepare`). Preprocessing in front of the first product and the softmax
    behind the last stay float32, and so do the logits.

    Args:
        scheme: from `choose_scheme`.
        images: training images, or such as stand in for them, shaped and typed as the model's input.
        method: how a range is taken from what was measured: minmax, percentile (99.999), entropy
            (Kullback-Leibler divergence between the histogram and its quantised form) or mse (least squared error).
        bias_correction: whether each bias is shifted until its layer's mean output is that of float32.

    Raises UserError for a file that can't be read or run, a graph in newer operators than the scheme takes, images
    that would calibrate to nonsense, and an unknown method.
    """
    if method not in ranges.METHODS:
        raise UserError(f"There is no calibration method {method!r}.{nearest(method, ranges.METHODS)}")
    source = load_model(model)
    _refuse_unsuitable(source, model, scheme)
    check_images(images, source)
    _try_to_open(source, model)
    prepared = rewrites.prepare(source)
    if scheme.placement == "integer kernels":
        prepared = rewrites.widen_constants(lay_open(prepared), boundaries.head(prepared))
    if bias_correction:
        prepared = give_biases(prepared)
    head, tail = boundaries.head(prepared), boundaries.tail(prepared)
    operators = operators_of(prepared, scheme)
    measured = ranges.measure(prepared, images, method=method, operators=operators, scheme=scheme)
    graph = Quantizable(prepared, measured, scheme, frozenset(operators), frozenset(head), frozenset(tail))
    return Calibrated(source, graph, images, bias_correction)


def write(model: ModelProto, target: Path, scheme: Scheme) -> QuantizedModel:
    """Write a Q/DQ graph to `target`."""
    quantized, kept_float = count_operators(model)
    return QuantizedModel(target, save_model(model, target), scheme, opset_version(model), quantized, kept_float)


def count_operators(model: ModelProto) -> tuple[dict[str, int], dict[str, int]]:
    """Operators of a Q/DQ graph by type: those whose data come out of a `DequantizeLinear`, and the others."""
    makers = producers(model.graph)
    quantized: Counter[str] = Counter()
    kept_float: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type in _QDQ:
            continue
        maker = makers.get(node.input[0]) if node.input else None
        is_quantized = maker is not None and maker.op_type == "DequantizeLinear"
        (quantized if is_quantized else kept_float)[node.op_type] += 1
    return dict(quantized), dict(kept_float)


def _refuse_unsuitable(model: ModelProto, path: Path, scheme: Scheme) -> None:
    opset = opset_version(model)
    if opset > scheme.highest_opset:
        raise UserError(
            f"{path} is written in opset {opset}, and the int8 scheme {scheme.name} takes up to "
            f"{scheme.highest_opset}; export it with an opset of {scheme.highest_opset} or lower."
        )
    if scheme.per_channel and opset < _PER_CHANNEL_OPSET:
        raise UserError(
            f"{path} is written in opset {opset}, and Q/DQ pairs have a scale for each channel from opset "
            f"{_PER_CHANNEL_OPSET} on; export it with a newer one."
        )
    if any(node.op_type in _QDQ for node in model.graph.node):
        raise UserError(f"{path} is quantised already; int8 is made from the float32 graph.")
    try:
        input_shape(model.graph)
    except ValueError as error:
        raise UserError(f"{path} can't be calibrated: {error}, and kdeploy quantises networks with one.") from None


def _try_to_open(model: ModelProto, path: Path) -> None:
    """Let the runtime say what it can't run, before the quantiser stumbles over it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:  # the runtime's exceptions share no base class
        raise UserError(f"ONNX Runtime can't run {path}: {first_line(error)}.") from None
