"""What the engine inspector says of a built engine, and whether its layers are in the precision asked for.

`IEngineInspector` and `trtexec --exportLayerInfo` write the same JSON, and each version writes it a little otherwise:
a tensor's type is a phrase ("Row major linear FP16 format") in 8 and early 10, a word ("Half") later; layers compiled
by Myelin are of type `gemm` or `kgen`, others `CaskConvolution`, with a `ParameterType`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdeploy.engines.base import Precision
from kdeploy.errors import GateFailed

_MULTIPLIES = re.compile(r"conv|gemm|matrix_?mul|matmul|fullyconnected", re.IGNORECASE)
_FUSED = re.compile(r"kgen|fusion|myelin", re.IGNORECASE)
_KERNEL = re.compile(r"gemm|fprop|conv|mma", re.IGNORECASE)
_TYPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\bint8\b", re.IGNORECASE), "int8"),
    (re.compile(r"\b(bf16|bfloat16)\b", re.IGNORECASE), "bfloat16"),
    (re.compile(r"\b(fp16|half)\b", re.IGNORECASE), "float16"),
    (re.compile(r"\b(fp32|float|float32)\b", re.IGNORECASE), "float32"),
)
"""From the lowest precision to the highest: what multiplies is the lowest that a layer reads."""
_TF32 = "tf32"
_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
"""In a layer's Metadata, one after the other with control characters between them."""
_SHOWN = 5


@dataclass(frozen=True)
class Layer:
    """One layer of an engine.

    precision: of what it multiplies, None where it does not, or does not say. nodes: those of the ONNX file that it
    computes, where it says.
    """

    name: str
    kind: str
    precision: str | None
    nodes: tuple[str, ...] = ()

    @property
    def operator(self) -> str:
        """Conv or MatMul: TensorRT has dozens of names for either."""
        return "Conv" if "conv" in self.kind.lower() else "MatMul"


def parse(text: str) -> tuple[Layer, ...]:
    """The layers in the inspector's JSON. Raises GateFailed for an engine without detailed layer information."""
    try:
        described = json.loads(text)
        listed = described["Layers"] if isinstance(described, dict) else described
    except (json.JSONDecodeError, KeyError):
        raise GateFailed(
            "TensorRT's engine inspector gave no list of layers, so the precision can't be proved."
        ) from None
    if not listed or any(not isinstance(layer, dict) for layer in listed):
        raise GateFailed(
            "TensorRT's engine inspector gave names alone; the engine was not built with detailed profiling verbosity."
        )
    return tuple(
        Layer(
            str(layer.get("Name", "")),
            str(layer.get("LayerType", "")),
            _precision(layer),
            tuple(_NODE.findall(str(layer.get("Metadata", "")))),
        )
        for layer in listed
    )


def counts(layers: tuple[Layer, ...]) -> Counter[str]:
    """The layers that multiply, by precision."""
    return Counter(layer.precision for layer in layers if layer.precision is not None)


def operators(layers: tuple[Layer, ...]) -> dict[str, dict[str, int]]:
    """The layers that multiply, by precision and by what they do."""
    found: dict[str, Counter[str]] = {}
    for layer in layers:
        if layer.precision is not None:
            found.setdefault(layer.precision, Counter())[layer.operator] += 1
    return {precision: dict(counter) for precision, counter in found.items()}


def require_precision(
    layers: tuple[Layer, ...],
    asked: Precision,
    expected: Mapping[Precision | None, int],
    *,
    share: float,
    path: Path,
) -> None:
    """Compare the layers with what the graph says.

    expected: the graph's convolutions and matrix multiplications by precision (`graph.precisions`). Fusing makes
    them fewer, never more, so a precision with more layers than the graph gave it holds layers that belong to
    another. share: how many must be right, of 1.

    Raises GateFailed where fewer are, naming the first of them, and where no layer at all shows the precision.
    """
    found = counts(layers)
    total = sum(found.values())
    surplus = {name: max(0, count - expected.get(name, 0)) for name, count in found.items() if name != asked}  # type: ignore[call-overload]  # a str asks for a Literal
    # Where no weight tells the graph's precision, either is right.
    wrong = max(0, sum(surplus.values()) - expected.get(None, 0))
    right = (total - wrong) / total if total else 0.0
    if not found[asked] or right < share:
        others = ", ".join(f"{count} in {name}" for name, count in found.items() if name != asked) or "none in another"
        named = [layer.name for layer in layers if layer.precision is not None and surplus.get(layer.precision)]
        shown = f" (such as {', '.join(named[:_SHOWN])})" if named else ""
        raise GateFailed(
            f"{path}: asked for {asked}, TensorRT built an engine with {found[asked]} layers in {asked} and "
            f"{others}{shown}; the graph gives {expected.get(asked, 0)} of its {sum(expected.values())} "
            f"multiplying operators {asked}. precision_share is {share:g} and {right:.2f} are right."
        )


def _precision(layer: Mapping[str, Any]) -> str | None:
    if not _multiplies(layer):
        return None
    weights = layer.get("Weights")
    told = [str(weights["Type"])] if isinstance(weights, dict) and "Type" in weights else list(_read(layer))
    for pattern, name in _TYPES:
        if any(pattern.search(text) for text in told):
            tensor_float = name == "float32" and _TF32 in str(layer.get("TacticName", "")).lower()
            return _TF32 if tensor_float else name
    return None


def _multiplies(layer: Mapping[str, Any]) -> bool:
    kind = f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}"
    if _MULTIPLIES.search(kind):
        return True
    return bool(_FUSED.search(kind) and _KERNEL.search(str(layer.get("TacticName", ""))))


def _read(layer: Mapping[str, Any]) -> Iterator[str]:
    """The types of the tensors that a layer reads."""
    for place in ("Inputs", "Constants"):
        for tensor in layer.get(place) or ():
            if isinstance(tensor, dict):
                yield str(tensor.get("Format/Datatype", ""))
