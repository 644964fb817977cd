"""Somebody else's ONNX file in the form of our own: raw uint8 images in, probabilities out. No torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from kdeploy.errors import UserError
from kdeploy.export.opsets import convert
from kdeploy.export.resizing import INPUT, prepend_resize
from kdeploy.quantize.files import load_model, opset_version
from kdeploy.quantize.graph import input_shape, producers
from kdeploy.recipe.schema import NormalizeSpec

OUTPUT = "probabilities"
LOWEST_OPSET, HIGHEST_OPSET = 13, 23
"""Per-channel Q/DQ needs 13; what the schemes and engines were proved with ends at 23."""
_IR_VERSION = 8
"""From 4 on initializers need not be inputs, which we would leave out; 8 belongs to opset 18."""
_DTYPES: dict[int, str] = {TensorProto.FLOAT: "float32", TensorProto.UINT8: "uint8"}
_QUANTISED = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger", "QLinearMatMul"}
_LAYOUTS = {"NCHW": 1, "NHWC": 3}


@dataclass(frozen=True)
class Foreign:
    """What a file takes and gives.

    layout: where its channels stand; height, width, batch: None where they are left open; probabilities: whether a
    softmax ends it. class_names, normalize: what its metadata say, where it is one of ours.
    """

    input_name: str
    dtype: str
    layout: Literal["NCHW", "NHWC"]
    batch: int | None
    height: int | None
    width: int | None
    channels: int
    probabilities: bool
    opset: int
    class_names: tuple[str, ...] | None
    normalize: NormalizeSpec | None


def read(path: Path) -> tuple[ModelProto, Foreign]:
    """Read a classifier of images. Raises UserError, in one sentence, for what is none, or not in float32."""
    model = load_model(path)
    _refuse_other_precisions(model, path)
    try:
        name, element_type, sizes = input_shape(model.graph)
    except ValueError as error:
        raise UserError(f"{path} is no classifier of images: {error}.") from None
    if element_type not in _DTYPES:
        kind = TensorProto.DataType.Name(element_type).lower()
        raise UserError(f"{path} takes {kind}; kdeploy takes in networks of float32 or uint8 images.")
    layout = next((layout for layout, at in _LAYOUTS.items() if len(sizes) == 4 and sizes[at] in (1, 3)), None)
    if layout is None:
        shown = ", ".join("?" if size is None else str(size) for size in sizes)
        raise UserError(f"{path} takes [{shown}], which is no batch of gray or colour images.")
    batch, channels = sizes[0], sizes[_LAYOUTS[layout]]
    height, width = sizes[2:] if layout == "NCHW" else sizes[1:3]
    assert channels is not None
    maker = producers(model.graph).get(model.graph.output[0].name)
    names, normalize = _metadata(model)
    return model, Foreign(
        input_name=name,
        dtype=_DTYPES[element_type],
        layout="NCHW" if layout == "NCHW" else "NHWC",
        batch=batch,
        height=height,
        width=width,
        channels=channels,
        probabilities=maker is not None and maker.op_type == "Softmax",
        opset=opset_version(model),
        class_names=names,
        normalize=normalize,
    )


def adopt(
    model: ModelProto,
    facts: Foreign,
    *,
    shape: tuple[int, int, int],
    classes: int,
    normalize: NormalizeSpec | None,
    opset: int,
    resize: bool,
) -> ModelProto:
    """The graph with its preprocessing in front and a softmax behind: `images`, uint8 `[batch, H, W, C]`.

    The batch is left open, by writing reshapes to a fixed one anew; whether that was right is for parity to say. shape:
    height, width, channels. normalize: of images in [0, 1]; None: pixels go in as they are, 0 to 255. resize: images of
    any size go in.

    Raises UserError where the operators cannot be written in that opset.
    """
    ours = ModelProto()
    ours.CopyFrom(model)
    ours.ir_version = max(ours.ir_version, _IR_VERSION)
    _open(ours, facts)
    if _collides(ours):
        ours = onnx.compose.add_prefix(ours, "theirs/")
    graph = ours.graph
    (fed,) = (value for value in graph.input if value.name not in {tensor.name for tensor in graph.initializer})
    front, constants = _front(facts, normalize, fed.name)
    back = []
    last = graph.output[0].name
    if not facts.probabilities:
        back = [helper.make_node("Softmax", [last], [OUTPUT], name="Softmax", axis=-1)]
    else:
        _rename(graph.node, last, OUTPUT)
    nodes = [*front, *graph.node, *back]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", *shape]))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", classes]))
    graph.name, graph.doc_string, ours.doc_string = "kdeploy", "", ""
    del ours.metadata_props[:]
    ours = convert(ours, opset)
    return prepend_resize(ours) if resize else ours


def settled_opset(found: int) -> int:
    """The opset that a file is kept in: its own, or 18 where that is out of what int8 and the engines take."""
    return found if LOWEST_OPSET <= found <= HIGHEST_OPSET else 18


def annotate(model: ModelProto, classes: tuple[str, ...], preprocessing: str, metadata: dict[str, str]) -> None:
    """Write into the file what those of ours say of themselves. preprocessing: JSON."""
    notes = {
        "kdeploy.classes": json.dumps(list(classes), ensure_ascii=False),
        "kdeploy.preprocessing": preprocessing,
        "kdeploy.output": OUTPUT,
        **metadata,
    }
    for key, value in notes.items():
        model.metadata_props.add(key=key, value=value)


def count_parameters(model: ModelProto) -> int:
    """The floating-point values of the file's weights."""
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    weights = [tensor for tensor in model.graph.initializer if tensor.data_type in floats and tensor.dims]
    return sum(int(np.prod(tensor.dims)) for tensor in weights)


def _open(model: ModelProto, facts: Foreign) -> None:
    """Open the batch, keep the first output alone, and drop the shapes noted inside, which no longer hold."""
    graph = model.graph
    del graph.value_info[:]
    del graph.output[1:]
    if facts.batch is not None:
        _open_batch(model, facts.batch)


def _open_batch(model: ModelProto, batch: int) -> None:
    """Reshapes that begin with the fixed batch keep what comes in: 0 copies the size of the input."""
    graph = model.graph
    shapes = {tensor.name: tensor for tensor in graph.initializer}
    values = {
        node.output[0]: attribute.t
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    for node in graph.node:
        if node.op_type != "Reshape":
            continue
        tensor = shapes.get(node.input[1]) or values.get(node.input[1])
        if tensor is None or any(attribute.name == "allowzero" and attribute.i for attribute in node.attribute):
            continue
        sizes = numpy_helper.to_array(tensor).copy()
        if sizes.ndim != 1 or len(sizes) == 0 or sizes[0] != batch:
            continue
        sizes[0] = 0
        name = f"{node.name or node.output[0]}/open_batch"
        graph.initializer.append(numpy_helper.from_array(sizes, name))
        node.input[1] = name


def _front(facts: Foreign, normalize: NormalizeSpec | None, into: str) -> tuple[list[NodeProto], list[TensorProto]]:
    """The nodes from `images` to the network's own input, with their constants."""
    steps: list[tuple[str, list[str], dict[str, Any]]] = []
    constants = []
    if facts.dtype == "float32":
        steps.append(("Cast", [], {"to": TensorProto.FLOAT}))  # first: TensorRT reads uint8 nowhere else
    if facts.layout == "NCHW":
        steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    if normalize is not None:
        along = (-1, 1, 1) if facts.layout == "NCHW" else (-1,)
        mean, std = (np.array(values, np.float64) for values in (normalize.mean, normalize.std))
        for kind, name, value in (("Mul", "scale", 1 / (255 * std)), ("Add", "shift", -mean / std)):
            constants.append(numpy_helper.from_array(value.astype(np.float32).reshape(along), f"preprocessing/{name}"))
            steps.append((kind, [f"preprocessing/{name}"], {}))
    if not steps:
        steps.append(("Identity", [], {}))
    names = [INPUT, *(f"preprocessing/{number}" for number in range(1, len(steps))), into]
    nodes = [
        helper.make_node(kind, [names[at], *more], [names[at + 1]], name=f"preprocessing/{kind}", **attributes)
        for at, (kind, more, attributes) in enumerate(steps)
    ]
    return nodes, constants


def _rename(nodes: list[NodeProto], old: str, new: str) -> None:
    for node in nodes:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                if name == old:
                    names[at] = new


def _collides(model: ModelProto) -> bool:
    """Whether a tensor in there has one of our names."""
    names = {name for node in model.graph.node for name in (*node.input, *node.output)}
    return any(name in (INPUT, OUTPUT) or name.startswith("preprocessing/") for name in names)


def _metadata(model: ModelProto) -> tuple[tuple[str, ...] | None, NormalizeSpec | None]:
    """The classes and the normalisation that a file of ours notes; None, None of any other."""
    notes = {entry.key: entry.value for entry in model.metadata_props}
    try:
        names = tuple(str(name) for name in json.loads(notes["kdeploy.classes"]))
        said = json.loads(notes["kdeploy.preprocessing"])
        normalize = None if said["in_graph"] else NormalizeSpec(mean=tuple(said["mean"]), std=tuple(said["std"]))
    except (KeyError, ValueError, TypeError):
        return None, None
    return names, normalize


def _refuse_other_precisions(model: ModelProto, path: Path) -> None:
    kinds = {node.op_type for node in model.graph.node}
    if kinds & _QUANTISED:
        raise UserError(
            f"{path} is quantised already, and kdeploy starts from float32; `kdeploy bench {path}` measures it as it "
            "is."
        )
    half = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    if any(tensor.data_type in half for tensor in model.graph.initializer):
        raise UserError(
            f"{path} holds weights of 16 bits, and kdeploy starts from float32; `kdeploy bench {path}` measures it as "
            "it is."
        )
