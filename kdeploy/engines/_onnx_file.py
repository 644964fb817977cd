"""Names, types and connections of an ONNX file, read without the onnx package, which a device does not have.

They are read from the protocol buffer's wire format; weights are skipped. Field numbers are those of onnx.proto
(ModelProto, GraphProto, NodeProto, TensorProto, ValueInfoProto).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kdeploy.errors import UserError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Field = tuple[int, int | memoryview]


@dataclass(frozen=True)
class Node:
    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    to: int | None
    """Cast and Constant: the type that they give."""

    def input(self, index: int) -> str:
        """The name of an input, empty where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else ""


@dataclass(frozen=True)
class Input:
    """An input of the graph: its name, TensorProto.DataType, and sizes, None where a size is open."""

    name: str
    element: int
    sizes: tuple[int | None, ...]


@dataclass(frozen=True)
class Graph:
    opset: int
    input: Input
    nodes: tuple[Node, ...]
    weights: dict[str, int]
    """TensorProto.DataType of each initializer, by name."""


def read(path: Path) -> Graph:
    """Read an ONNX file with one input. Raises UserError where there is none, or something else, or two inputs."""
    try:
        content = memoryview(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    try:
        return _graph(content)
    except UserError as error:
        raise UserError(f"{path} {error}") from None
    except (ValueError, IndexError, UnicodeDecodeError, AttributeError, TypeError):
        raise UserError(f"{path} is not a whole ONNX file.") from None


def weight_files(path: Path) -> list[Path]:
    """The files beside an ONNX file that hold its weights (external data), each once; those that are not there too,
    those outside of its folder not.

    Raises UserError as `read` does; a file that can't be understood is not this function's to refuse: it has none.
    """
    try:
        model = _fields(memoryview(path.read_bytes()))
        graphs = [_bytes(value) for number, value in model if number == 7]
        tensors = [_bytes(value) for graph in graphs for number, value in _fields(graph) if number == 5]
        locations = [location for tensor in tensors for location in _locations(tensor)]
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    except (ValueError, IndexError, UnicodeDecodeError):
        return []
    beside = [path.parent / location for location in dict.fromkeys(locations)]
    return [file for file in beside if file.resolve().is_relative_to(path.parent.resolve())]


def _locations(tensor: memoryview) -> Iterator[str]:
    """Of TensorProto.external_data, a list of pairs of texts, the value of "location"."""
    for number, value in _fields(tensor):
        if number == 13:
            pair = {place: _text(text) for place, text in _fields(_bytes(value))}
            if pair.get(1) == "location":
                yield pair.get(2, "")


def _graph(content: memoryview) -> Graph:
    opset, body = None, None
    for number, value in _fields(content):
        if number == 7:
            body = value
        elif number == 8:
            domain, version = _opset(_bytes(value))
            opset = version if domain in ("", "ai.onnx") else opset
    if opset is None or body is None:
        raise ValueError("neither a graph nor an opset")
    nodes, weights, inputs = [], {}, []
    for number, value in _fields(_bytes(body)):
        if number == 1:
            nodes.append(_node(_bytes(value)))
        elif number == 5:
            name, element = _tensor(_bytes(value))
            weights[name] = element
        elif number == 11:
            inputs.append(_value(_bytes(value)))
    for node in nodes:  # a Constant is a weight written as a node
        if node.operator == "Constant" and node.to is not None:
            weights.update(dict.fromkeys(node.outputs, node.to))
    inputs = [found for found in inputs if found.name not in weights]
    if len(inputs) != 1:
        raise UserError(f"has {len(inputs)} inputs; kdeploy runs networks with one.")
    return Graph(opset, inputs[0], tuple(nodes), weights)


def _opset(content: memoryview) -> tuple[str, int]:
    domain, version = "", 0
    for number, value in _fields(content):
        if number == 1:
            domain = _text(value)
        elif number == 2 and isinstance(value, int):
            version = value
    return domain, version


def _node(content: memoryview) -> Node:
    texts: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: []}
    to = None
    for number, value in _fields(content):
        if number in texts:
            texts[number].append(_text(value))
        elif number == 5:
            to = _type_in_attribute(_bytes(value)) or to
    return Node("".join(texts[3]), "".join(texts[4]), tuple(texts[1]), tuple(texts[2]), to)


def _type_in_attribute(content: memoryview) -> int | None:
    """The type of a Cast's `to`, or of a Constant's `value`."""
    name, number_value, tensor = "", None, None
    for number, value in _fields(content):
        if number == 1:
            name = _text(value)
        elif number == 3 and isinstance(value, int):
            number_value = value
        elif number == 5:
            tensor = _tensor(_bytes(value))[1]
    return {"to": number_value, "value": tensor}.get(name)


def _tensor(content: memoryview) -> tuple[str, int]:
    name, element = "", 0
    for number, value in _fields(content):
        if number == 2 and isinstance(value, int):
            element = value
        elif number == 8:
            name = _text(value)
    return name, element


def _value(content: memoryview) -> Input:
    name, element, sizes = "", 0, []
    for number, value in _fields(content):
        if number == 1:
            name = _text(value)
        elif number == 2:
            tensors = [_bytes(found) for at, found in _fields(_bytes(value)) if at == 1]
            for at, found in _fields(tensors[0]):
                if at == 1 and isinstance(found, int):
                    element = found
                elif at == 2:
                    sizes = [_size(_bytes(size)) for _, size in _fields(_bytes(found))]
    return Input(name, element, tuple(sizes))


def _size(content: memoryview) -> int | None:
    found = [value for number, value in _fields(content) if number == 1 and isinstance(value, int)]
    return found[0] if found and found[0] > 0 else None


def _fields(content: memoryview) -> Iterator[Field]:
    """The fields of a message: their numbers with an integer or bytes."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(content, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            length, at = _varint(content, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + length > len(content):
            raise ValueError("cut off")
        yield key >> 3, content[at : at + length]
        at += length


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise ValueError("a number too long")


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where bytes belong")
    return value


def _text(value: int | memoryview) -> str:
    return str(_bytes(value), "utf-8")
