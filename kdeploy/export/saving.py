"""ONNX files of any size: protobuf holds 2 GiB, and beyond that weights lie in a file of their own."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
from onnx import ModelProto

from kdeploy import artifacts
from kdeploy.errors import UserError
from kdeploy.quantize.files import first_line, save_model

LARGEST_BYTES = 2**31 - 2**20
"""Of weights in one file: protobuf's bound, less what nodes and names take."""


def weight_bytes(model: ModelProto) -> int:
    """The bytes of all initializers."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def save(model: ModelProto, target: Path) -> str:
    """Write `model` whole or not at all, and return the SHA-256 of the ONNX file.

    Weights above 2 GiB go to `<target>.data` beside it, and nothing smaller does.
    """
    if weight_bytes(model) <= LARGEST_BYTES:
        return save_model(model, target)
    data = target.with_name(f"{target.name}.data")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.stem}-", dir=target.parent) as folder:
        written = Path(folder) / target.name
        onnx.save_model(model, written, save_as_external_data=True, location=data.name, convert_attribute=False)
        try:
            onnx.checker.check_model(written, full_check=True)  # the checker takes no more than 2 GiB from memory
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise UserError(f"The exported graph does not pass ONNX's checker: {first_line(error)}.") from None
        for source, place in ((written.with_name(data.name), data), (written, target)):
            artifacts.sync(source)
            source.replace(place)
    artifacts.sync(target.parent)
    return artifacts.sha256_file(target)
