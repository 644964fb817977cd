"""Small real ONNX files and engine folders, whose outputs NumPy can compute as well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from kdeploy import engines
from kdeploy.engines.base import Manifest, Preprocessing

SIZE = 8
CLASSES = ("cat", "dog", "owl")


def weights() -> NDArray[np.float32]:
    """Of the linear classifier, float32 `[64, 3]`."""
    return np.random.default_rng(7).standard_normal((SIZE * SIZE, len(CLASSES))).astype(np.float32)


def probabilities(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What the classifier must answer: softmax of the flattened images / 255 times the weights, in float64."""
    logits = (images.reshape(len(images), -1) / 255.0) @ weights().astype(np.float64)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Random images, uint8 `[count, 8, 8, 1]`."""
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 1), dtype=np.uint8)


def save_classifier(
    path: Path, *, in_graph: bool = True, batch: int | str = "batch", opset: int = 18, name: str = "image"
) -> Path:
    """A linear classifier: uint8 `[B, 8, 8, 1]` to probabilities, or float32 `[B, 1, 8, 8]` to logits."""
    element = TensorProto.UINT8 if in_graph else TensorProto.FLOAT
    shape = [batch, SIZE, SIZE, 1] if in_graph else [batch, 1, SIZE, SIZE]
    nodes = [
        helper.make_node("Flatten", ["scaled" if in_graph else name], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    if in_graph:
        nodes.insert(0, helper.make_node("Cast", [name], ["number"], to=TensorProto.FLOAT))
        nodes.insert(1, helper.make_node("Div", ["number", "range"], ["scaled"]))
        nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"]))
    output = "probabilities" if in_graph else "logits"
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info(name, element, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, len(CLASSES)])],
        [numpy_helper.from_array(weights(), "weights"), numpy_helper.from_array(np.float32(255), "range")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def save_quantised(path: Path, *, name: str = "image") -> Path:
    """The classifier on images, its product in int8: uint8 activations, int8 weights (static Q/DQ)."""
    whole = weights()
    scale = np.float32(np.abs(whole).max() / 127)
    nodes = [
        helper.make_node("Cast", [name], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["number", "range"], ["scaled"]),
        helper.make_node("Flatten", ["scaled"], ["flat"]),
        helper.make_node("QuantizeLinear", ["flat", "flat_scale", "flat_zero"], ["flat_q"]),
        helper.make_node("DequantizeLinear", ["flat_q", "flat_scale", "flat_zero"], ["flat_dq"]),
        helper.make_node("DequantizeLinear", ["weights_q", "weights_scale", "weights_zero"], ["weights_dq"]),
        helper.make_node("MatMul", ["flat_dq", "weights_dq"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    constants = {
        "range": np.float32(255),
        "flat_scale": np.float32(1 / 255),
        "flat_zero": np.uint8(0),
        "weights_q": np.round(whole / scale).astype(np.int8),
        "weights_scale": scale,
        "weights_zero": np.int8(0),
    }
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info(name, TensorProto.UINT8, ["batch", SIZE, SIZE, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(CLASSES)])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def save_convolutions(path: Path, *, batch: int | str = "batch") -> Path:
    """float32 `[B, 1, 8, 8]` to logits through two convolutions, the nodes named as kdeploy's export names them."""
    random = np.random.default_rng(5)
    constants = {
        "conv1.weight": random.standard_normal((16, 1, 3, 3)),
        "conv2.weight": random.standard_normal((16, 16, 3, 3)) / 12,
        "fc.weight": random.standard_normal((16, len(CLASSES))),
    }
    nodes = [
        helper.make_node("Conv", ["image", "conv1.weight"], ["a"], name="network.conv1/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="network/Relu"),
        helper.make_node("Conv", ["b", "conv2.weight"], ["c"], name="network.conv2/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c", "b"], ["d"], name="network/Add"),
        helper.make_node("Relu", ["d"], ["e"], name="network/Relu_2"),
        helper.make_node("GlobalAveragePool", ["e"], ["f"], name="network.pool/GlobalAveragePool"),
        helper.make_node("Flatten", ["f"], ["g"], name="network/Flatten"),
        helper.make_node("MatMul", ["g", "fc.weight"], ["logits"], name="network.fc/MatMul"),
    ]
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 1, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, len(CLASSES)])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def manifest(*, in_graph: bool = True, **changes: object) -> Manifest:
    """What is known of the classifier before its engine is built."""
    known = Manifest(
        engine="onnxruntime",
        precision="float32",
        model="",
        files={},
        size_bytes=0,
        input_name="image",
        input_dtype="uint8" if in_graph else "float32",
        output="probabilities" if in_graph else "logits",
        preprocessing=Preprocessing(in_graph=in_graph, height=SIZE, width=SIZE, channels=1, mean=(0.0,), std=(1.0,)),
        classes=CLASSES,
        parameters=192,
        macs=192,
        source="0" * 64,
        opset=18,
    )
    return known.model_copy(update=changes)


def build(folder: Path, *, in_graph: bool = True) -> Path:
    """A built engine folder of the classifier."""
    folder.mkdir(parents=True, exist_ok=True)
    source = save_classifier(folder.parent / f"{folder.name}-source.onnx", in_graph=in_graph)
    engines.find("onnxruntime").build(source, folder, manifest(in_graph=in_graph))
    return folder
