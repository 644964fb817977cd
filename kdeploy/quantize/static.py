"""Static int8: Q/DQ pairs around every product, with ranges measured on real images."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

from kdeploy import events
from kdeploy.errors import UserError, nearest
from kdeploy.quantize import boundaries, rewrites
from kdeploy.quantize.calibration import ImageReader, check_images
from kdeploy.quantize.files import first_line, load_model, opset_version, save_model
from kdeploy.quantize.graph import input_shape, producers
from kdeploy.quantize.schemes import Scheme

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
_TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})
_MAX_STRIDE = 32


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


def quantize(
    model: Path, target: Path, *, scheme: Scheme, images: NDArray[Any], method: str = "minmax"
) -> QuantizedModel:
    """Write an int8 Q/DQ version of the float32 graph `model` to `target`.

    The graph is rewritten first (`rewrites.prepare`). Preprocessing in front of the first product and the softmax
    behind the last stay float32, and so do the logits.

    Args:
        scheme: from `choose_scheme`.
        images: training images, or such as stand in for them, shaped and typed as the model's input.
        method: how a range is taken from what was measured: minmax, percentile (99.999) or entropy
            (Kullback-Leibler divergence between the histogram and its quantised form).

    Raises UserError for a file that can't be read or run, a graph in newer operators than the scheme takes, images
    that would calibrate to nonsense, and an unknown method.
    """
    if method not in METHODS:
        raise UserError(f"There is no calibration method {method!r}.{nearest(method, METHODS)}")
    source = load_model(model)
    _refuse_unsuitable(source, model, scheme)
    check_images(images, source)
    prepared = rewrites.prepare(source)
    tail = boundaries.tail(prepared)
    quantized = _quantize(prepared, model, scheme, images, METHODS[method], [*boundaries.head(prepared), *tail])
    finished = rewrites.drop_unused(rewrites.strip_value_info(rewrites.keep_logits_float(quantized, set(tail))))
    del finished.metadata_props[:]
    finished.metadata_props.extend(source.metadata_props)
    counts = count_operators(finished)
    return QuantizedModel(
        path=target,
        sha256=save_model(finished, target),
        scheme=scheme,
        opset=opset_version(finished),
        quantized=counts[0],
        kept_float=counts[1],
    )


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
    if any(node.op_type in _QDQ for node in model.graph.node):
        raise UserError(f"{path} is quantised already; int8 is made from the float32 graph.")
    try:
        input_shape(model.graph)
    except ValueError as error:
        raise UserError(f"{path} can't be calibrated: {error}, and kdeploy quantises networks with one.") from None


def _quantize(
    model: ModelProto,
    path: Path,
    scheme: Scheme,
    images: NDArray[Any],
    method: CalibrationMethod,
    keep_float: list[str],
) -> ModelProto:
    with tempfile.TemporaryDirectory(prefix="kdeploy-") as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        save_model(model, before)
        _try_to_open(before, path)
        # ONNX Runtime keeps every activation of a part in memory when it makes histograms.
        stride = max(size for size in range(1, _MAX_STRIDE + 1) if len(images) % size == 0)
        with events.task("calibrating int8", len(images)) as bar, _quiet():
            quantize_static(
                before,
                after,
                ImageReader(images, input_shape(model.graph)[0], bar),
                quant_format=QuantFormat.QDQ,
                activation_type=_TYPES[scheme.activation_type],
                weight_type=_TYPES[scheme.weight_type],
                per_channel=scheme.per_channel,
                reduce_range=scheme.reduce_range,
                calibrate_method=method,
                nodes_to_exclude=keep_float,
                extra_options={"ActivationSymmetric": scheme.symmetric_activations, "CalibStridedMinMax": stride},
            )
        return load_model(after)


def _try_to_open(model: Path, path: Path) -> None:
    """Let the runtime say what it can't run, before the quantiser stumbles over it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # the runtime's exceptions share no base class
        raise UserError(f"ONNX Runtime can't run {path}: {first_line(error)}.") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep ONNX Runtime's quantiser off the screen: it prints, and it logs to the root logger.

    Its warnings ask for a preparation of the graph that was done here in another way. The handler keeps
    `logging.warning` from installing one of its own.
    """
    root = logging.getLogger()
    handler = logging.NullHandler()

    def refuse(record: logging.LogRecord) -> bool:
        return "quantization" not in record.pathname

    root.addHandler(handler)
    root.addFilter(refuse)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.removeFilter(refuse)
        root.removeHandler(handler)
