"""The network that `tensorrt_check.py` builds: small, with a residual, in each precision that TensorRT takes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, CLASSES, WIDTHS = 32, 10, (3, 32, 64, 128)
OPSET = 17  # what TensorRT 8 reads
ELEMENTS = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}
SCALES = {"images": 0.03, "weights": 0.01}


def write_network(folder: Path, precision: str) -> Path:
    """Convolutions with ReLU, a residual, global pooling and a linear layer; seeded weights."""
    network = Network(precision)
    features = network.cast("images", precision)
    for index, (before, after) in enumerate(itertools.pairwise(WIDTHS)):
        features = network.convolution(features, f"stage{index}", before, after, stride=1 if index == 0 else 2)
    inner = network.convolution(features, "inner", WIDTHS[-1], WIDTHS[-1], stride=1)
    features = network.node("Add", [features, inner], "residual")
    pooled = network.node("Flatten", [network.node("GlobalAveragePool", [features], "pool")], "flat")
    low = network.node("MatMul", [network.quantised(pooled), network.weight("head", (WIDTHS[-1], CLASSES))], "scores")
    network.nodes.append(helper.make_node("Cast", [low], ["logits"], to=TensorProto.FLOAT))
    path = folder / f"network.{precision}.onnx"
    onnx.save(network.model(), path)
    return path


class Network:
    """ONNX nodes and weights in one precision; int8: Q/DQ on both sides of whatever multiplies."""

    def __init__(self, precision: str) -> None:
        self.precision = precision
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(0)
        for name, scale in SCALES.items():
            self.weights.append(numpy_helper.from_array(np.float32(scale), f"{name}_scale"))
        self.weights.append(numpy_helper.from_array(np.int8(0), "zero"))

    def node(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def cast(self, tensor: str, precision: str) -> str:
        return self.node("Cast", [tensor], "low", to=TensorProto.FLOAT16) if precision == "float16" else tensor

    def convolution(self, tensor: str, name: str, before: int, after: int, *, stride: int) -> str:
        inputs = [self.quantised(tensor), self.weight(name, (after, before, 3, 3))]
        found = self.node("Conv", inputs, name, pads=[1] * 4, strides=[stride] * 2)
        return self.node("Relu", [found], f"{name}_relu")

    def weight(self, name: str, shape: tuple[int, ...]) -> str:
        fan_in = int(np.prod(shape[1:])) if len(shape) == 4 else shape[0]
        values = self.random.standard_normal(shape) * np.sqrt(2 / fan_in)
        if self.precision != "int8":
            element = ELEMENTS[self.precision]
            self.weights.append(helper.make_tensor(f"{name}_weight", element, shape, values.ravel()))
            return f"{name}_weight"
        rounded = np.clip(np.rint(values / SCALES["weights"]), -127, 127).astype(np.int8)
        self.weights.append(numpy_helper.from_array(rounded, f"{name}_weight"))
        return self.node("DequantizeLinear", [f"{name}_weight", "weights_scale", "zero"], f"{name}_weight_dq")

    def quantised(self, tensor: str) -> str:
        if self.precision != "int8":
            return tensor
        number = len(self.nodes)
        quantised = self.node("QuantizeLinear", [tensor, "images_scale", "zero"], f"{tensor}_q{number}")
        return self.node("DequantizeLinear", [quantised, "images_scale", "zero"], f"{tensor}_dq{number}")

    def model(self) -> onnx.ModelProto:
        used = {name for node in self.nodes for name in node.input}
        body = helper.make_graph(
            self.nodes,
            "check",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", WIDTHS[0], SIDE, SIDE])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
            [weight for weight in self.weights if weight.name in used],
        )
        made = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        onnx.checker.check_model(made)
        return made
