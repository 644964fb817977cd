"""What an exported graph must hold before it is written."""

from __future__ import annotations

import onnx
from onnx import ModelProto, ValueInfoProto

from kdeploy.errors import UserError
from kdeploy.export.saving import LARGEST_BYTES, weight_bytes
from kdeploy.quantize.files import first_line, opset_version


def check(model: ModelProto, *, opset: int, input_sizes: tuple[int | None, ...], classes: int) -> None:
    """Assert what was asked for, since the exporter may warn, do something else, and succeed.

    The graph passes ONNX's checker with shape inference; it is written in `opset`; the batch is symbolic in its
    input and its output, and the same; the other sizes are `input_sizes` (None: left open) and `classes`.
    Raises UserError.
    """
    try:
        if weight_bytes(model) <= LARGEST_BYTES:  # of a larger one, the file is checked as it is written
            onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UserError(f"The exported graph does not pass ONNX's checker: {first_line(error)}.") from None
    found = opset_version(model)
    if found != opset:
        raise UserError(
            f"Opset {opset} was asked for and the exporter wrote opset {found}; set export.opset to {found}, or "
            "change the network to operators that both have."
        )
    (images,), (outputs,) = model.graph.input, model.graph.output
    batch, *sizes = _sizes(images)
    output_batch, *output_sizes = _sizes(outputs)
    if isinstance(batch, int) or output_batch != batch:
        raise UserError(
            f"The batch should be left open, but the network fixes it: the graph takes {_sizes(images)} and gives "
            f"{_sizes(outputs)}; use x.shape[0] where the network's forward writes a batch size."
        )
    fits = len(sizes) == len(input_sizes) and all(
        not isinstance(size, int) if wanted is None else size == wanted
        for size, wanted in zip(sizes, input_sizes, strict=True)
    )
    if not fits:
        wanted_sizes = ["open" if size is None else size for size in input_sizes]
        raise UserError(f"The graph takes images of {sizes}, not of {wanted_sizes}.")
    if output_sizes != [classes]:
        raise UserError(
            f"The network gives {output_sizes} outputs an image, and the data have {classes} classes; a class_map "
            "picks the outputs that belong to them."
        )


def _sizes(value: ValueInfoProto) -> list[int | str]:
    """The sizes of a tensor: numbers where they are fixed, names (or "?") where they are not."""
    dimensions = value.type.tensor_type.shape.dim
    return [size.dim_value if size.HasField("dim_value") else size.dim_param or "?" for size in dimensions]
