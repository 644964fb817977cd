"""Outside simplifiers, which are known to crash and to freeze shapes: each runs in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import onnx
from onnx import ModelProto

from kdeploy.errors import UserError, missing_extra
from kdeploy.quantize.files import load_model, opset_version

TOOL = "onnxslim"
_SECONDS = 300.0


def require_tool() -> None:
    """Raise Unavailable, with the command that installs it, where the simplifier is not to be had."""
    if importlib.util.find_spec(TOOL) is None:
        raise missing_extra(TOOL, "simplify", "--simplify")


def simplify(path: Path, target: Path, *, seconds: float = _SECONDS) -> str | None:
    """Write a simplified form of `path` to `target`; why there is none, in words, or None where there is.

    What it gives must be valid ONNX with the same input, output and opset. Whether it computes the same is for the
    caller to see. The metadata go along.
    """
    command = [sys.executable, "-m", TOOL, str(path.resolve()), str(target.resolve())]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, errors="replace", check=False)
    except subprocess.TimeoutExpired:
        return f"{TOOL} took more than {seconds:g} s"
    if done.returncode != 0 or not target.is_file():
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        return f"{TOOL} ended with status {done.returncode}: {lines[-1] if lines else 'it said nothing'}"
    try:
        before, after = load_model(path), load_model(target)
    except UserError as error:
        return f"what {TOOL} gave cannot be read: {error}"
    if _interface(before) != _interface(after):
        return f"{TOOL} changed the graph's input, output or opset"
    del after.metadata_props[:]
    after.metadata_props.extend(before.metadata_props)
    onnx.save(after, target)
    return None


def count_nodes(path: Path) -> int:
    """The nodes of a file's graph."""
    return len(load_model(path).graph.node)


def _interface(model: ModelProto) -> tuple[list[bytes], list[bytes], int]:
    values = (model.graph.input, model.graph.output)
    inputs, outputs = ([value.name.encode() + value.type.SerializeToString() for value in side] for side in values)
    return inputs, outputs, opset_version(model)
