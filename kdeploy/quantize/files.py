"""ONNX files in and out: what cannot be read is refused in one sentence, what is written is written whole."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto

from kdeploy import artifacts
from kdeploy.errors import UserError

_STANDARD = ("", "ai.onnx")


def load_model(path: Path) -> ModelProto:
    """Read and check an ONNX file, its external data too where they lie in the file's own folder.

    Raises UserError, in one sentence that names the file, for a missing file, one that is cut short or no ONNX at
    all, a graph that ONNX's checker refuses (operators that do not exist, cycles, wrong types), and external data
    that are missing or point outside the folder.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}.") from None
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        raise UserError(f"{path} ({len(content):,} bytes) is not an ONNX file, or was cut short.") from None
    if not model.graph.node:
        raise UserError(f"{path} ({len(content):,} bytes) holds no ONNX graph.")
    if not any(entry.domain in _STANDARD for entry in model.opset_import):
        raise UserError(f"{path} is not written in ONNX's standard operators.")
    for tensor in external_tensors(model):
        _refuse_outside(tensor, path)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, OSError, ValueError) as error:
        raise UserError(f"{path} is not valid ONNX: {first_line(error)}.") from None
    return model


def save_model(model: ModelProto, target: Path) -> str:
    """Write `model` whole or not at all, and return the SHA-256 of the file."""
    artifacts.write_bytes(target, model.SerializeToString(deterministic=True))
    return artifacts.sha256_file(target)


def external_tensors(model: ModelProto) -> list[TensorProto]:
    """The initializers whose data lie in another file."""
    return [tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]


def opset_version(model: ModelProto) -> int:
    """The version of the standard operators that the graph is written in."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in _STANDARD)


def first_line(error: Exception) -> str:
    """What an exception of ONNX or its runtime says, without the lines of context that follow."""
    message = str(error).strip() or type(error).__name__
    return message.splitlines()[0].strip().rstrip(".")


def _refuse_outside(tensor: TensorProto, path: Path) -> None:
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    folder = path.parent.resolve()
    file = (folder / location).resolve()
    if not location or not file.is_relative_to(folder):
        raise UserError(f"{path}: the data of {tensor.name!r} point outside its folder, to {location!r}; refused.")
    if not file.is_file():
        raise UserError(f"{path}: the data of {tensor.name!r} should be in {file}, which is missing.")
