"""A graph in other operators: lowered (or raised) to the opset that an engine takes."""

from __future__ import annotations

import onnx
from onnx import ModelProto, defs, version_converter

from kdeploy.errors import UserError
from kdeploy.quantize.files import first_line, opset_version


def convert(model: ModelProto, opset: int) -> ModelProto:
    """The same graph written in `opset`; the model itself where it is already. Parity is the caller's to check again.

    Raises UserError where an operator has no form in that opset.
    """
    found = opset_version(model)
    if found == opset:
        return model
    try:
        converted = version_converter.convert_version(_without_defaults(model, found), opset)
        onnx.checker.check_model(converted, full_check=True)
    except Exception as error:  # the converter raises RuntimeError and whatever its adapters stumble over
        raise UserError(
            f"The graph is written in opset {found} and has no form in opset {opset}: {_reason(error)}."
        ) from None
    if opset_version(converted) != opset:
        raise UserError(f"The graph is written in opset {found} and has no form in opset {opset}.")
    del converted.graph.value_info[:]
    converted.metadata_props.extend(model.metadata_props if not converted.metadata_props else [])
    return converted


def _without_defaults(model: ModelProto, opset: int) -> ModelProto:
    """A copy that does not spell out what is an operator's default, such as ReduceMean's `noop_with_empty_axes`.

    An older form of the operator may not know the attribute, and the converter leaves it where it is.
    """
    bare = ModelProto()
    bare.CopyFrom(model)
    for node in bare.graph.node:
        if node.domain in ("", "ai.onnx") and defs.has(node.op_type):
            known = defs.get_schema(node.op_type, opset).attributes
            spelt = [a for a in node.attribute if a.name in known and a == known[a.name].default_value]
            for attribute in spelt:
                node.attribute.remove(attribute)
    return bare


def _reason(error: Exception) -> str:
    """What the converter says behind the line of its source: "…: Assertion `…` failed: No Adapter From Version $14"."""
    return first_line(error).rpartition(" failed: ")[2].replace("$", "")
