"""Bias correction: what int8 adds to a layer's mean output is taken from its bias.

Nagel, van Baalen, Blankevoort, Welling: "Data-Free Quantization Through Weight Equalization and Bias Correction",
ICCV 2019, section 4.2; here in its empirical form (appendix D), with real images instead of batch-norm statistics.
"""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from kdeploy import events
from kdeploy.quantize.graph import constants, only_for, producers
from kdeploy.quantize.running import Running

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm"})
_BIAS = 2
"""Which input of these operators is the bias."""

Images = NDArray[np.generic]
Means = NDArray[np.float64]


def give_biases(model: ModelProto) -> ModelProto:
    """A constant bias of its own for each layer that has constant weights: zeros where it has none, a copy of one that
    it shares, so that there is something to correct."""
    result = copy.deepcopy(model)
    values = constants(result.graph)
    given: set[str] = set()
    for node in result.graph.node:
        if node.op_type not in _LAYERS or node.input[1] not in values:
            continue
        old = node.input[_BIAS] if len(node.input) > _BIAS else ""
        if old and (old not in values or old not in given):
            given.add(old)
            continue
        bias = values[old] if old else np.zeros(_channels(node, values[node.input[1]]), dtype=np.float32)
        name = f"{node.output[0]}_bias"
        result.graph.initializer.append(numpy_helper.from_array(bias, name))
        node.input[:] = [*node.input[:_BIAS], name]
    return result


def correct_biases(quantized: ModelProto, float32: ModelProto, images: Images) -> ModelProto:
    """The Q/DQ graph with biases under which each layer's mean output over the images is that of float32.

    Layer after layer in the order in which they are computed, each measured with those before it corrected already.
    The output is taken before the activation function, which float32 has behind it and int8 in its rounding. Biases
    that are int32 are corrected in steps of their scale.

    quantized, float32: the same network; layers are found by the names of their nodes. images: `[N, ...]` as the
    graphs take them.
    """
    result = copy.deepcopy(quantized)
    references = {node.name: node for node in float32.graph.node}
    layers = [node for node in result.graph.node if node.op_type in _LAYERS and node.name in references]
    layers = [node for node in layers if _is_quantized(node, result) and _bias(node, result) is not None]
    with events.task("correcting biases", len(layers)) as bar:
        for node in layers:
            wanted = channel_means(float32, references[node.name].output[0], images)
            found = channel_means(result, node.output[0], images)
            _shift(result, node, wanted - found)
            bar.advance()
    return result


def channel_means(model: ModelProto, tensor: str, images: Images) -> Means:
    """The mean over images and positions of each channel (dimension 1) of a tensor `[N, C, ...]`: `[C]`."""
    sums, count = np.zeros(1), 0
    for values in Running(only_for(model, tensor), optimised=False).batches(images):
        others = tuple(axis for axis in range(values.ndim) if axis != 1)
        sums = sums + values.sum(axis=others, dtype=np.float64)
        count += values.size // values.shape[1]
    return sums / count


def _is_quantized(node: NodeProto, model: ModelProto) -> bool:
    maker = producers(model.graph).get(node.input[0])
    return maker is not None and maker.op_type == "DequantizeLinear"


def _bias(layer: NodeProto, model: ModelProto) -> tuple[TensorProto, TensorProto | None] | None:
    """A layer's constant bias, and where it is int32, its scale; None where it has none."""
    if len(layer.input) <= _BIAS:
        return None
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    dequantize = producers(model.graph).get(layer.input[_BIAS])
    if dequantize is None:
        found = tensors.get(layer.input[_BIAS])
        return None if found is None else (found, None)
    if dequantize.op_type != "DequantizeLinear" or dequantize.input[0] not in tensors:
        return None
    return tensors[dequantize.input[0]], tensors[dequantize.input[1]]


def _shift(model: ModelProto, layer: NodeProto, by: Means) -> None:
    """Add to a layer's bias."""
    found = _bias(layer, model)
    assert found is not None  # as `correct_biases` has chosen its layers
    tensor, scale = found
    values = numpy_helper.to_array(tensor)
    if scale is None:
        shifted = (values + by).astype(np.float32)
    else:
        limits, steps = np.iinfo(np.int32), by / numpy_helper.to_array(scale).astype(np.float64)
        shifted = np.clip(np.rint(values + steps), limits.min, limits.max).astype(np.int32)
    tensor.CopyFrom(numpy_helper.from_array(shifted, tensor.name))


def _channels(node: NodeProto, weight: NDArray[np.generic]) -> int:
    """How many output channels a layer's weight has."""
    flags = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "Gemm":
        return int(weight.shape[0 if flags.get("transB", 0) else 1])
    if node.op_type == "ConvTranspose":
        return int(weight.shape[1]) * int(flags.get("group", 1))
    return int(weight.shape[0])
