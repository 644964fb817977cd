"""How a target's processor quantises best: named after the target, since nobody remembers the flags."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from kdeploy import events
from kdeploy.errors import Unavailable, UserError, nearest

IntegerType = Literal["uint8", "int8"]
Placement = Literal["integer kernels", "products and residuals", "everything"]


@dataclass(frozen=True)
class Scheme:
    """One way to write int8 into a graph (static Q/DQ)."""

    name: str
    instruction_sets: frozenset[str]
    """It suits a processor that has one of these, as `/proc/cpuinfo` spells them."""
    activation_type: IntegerType
    weight_type: IntegerType
    per_channel: bool
    """A scale for each output channel of a weight, instead of one for all."""
    reduce_range: bool
    """Weights in 7 bits instead of 8."""
    symmetric_activations: bool
    """Activations with zero point 0."""
    highest_opset: int
    """The newest operators that its target takes, as far as the tests of this room, or its documentation, prove it."""
    why: str
    placement: Placement = "integer kernels"
    """Around which operators Q/DQ pairs stand: those for which ONNX Runtime's CPU kernels compute in integers; products
    and residual additions; or every operator between the first product and the logits."""
    float_weights: bool = False
    """Weights stay float32 in front of a Q/DQ pair of their own, and biases float32 without one: the target's compiler
    quantises them."""
    per_channel_operators: frozenset[str] = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
    """Where `per_channel` holds; the others have one scale for a weight."""


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme(
            name="x86-vnni",
            instruction_sets=frozenset({"avx512_vnni", "avx_vnni", "amx_int8"}),
            activation_type="uint8",
            weight_type="int8",
            per_channel=True,
            reduce_range=False,
            symmetric_activations=False,
            highest_opset=23,
            why="VNNI multiplies uint8 by int8 without saturating; int8 activations were measured slower than float32",
        ),
        # VPMADDUBSW adds two products of uint8 and int8 in 16 bits, which saturates with 8-bit weights: up to eight
        # points of top-1 on the very same file. https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
        Scheme(
            name="x86-avx2",
            instruction_sets=frozenset({"avx2"}),
            activation_type="uint8",
            weight_type="int8",
            per_channel=True,
            reduce_range=True,
            symmetric_activations=False,
            highest_opset=23,
            why="without VNNI, products of uint8 and int8 saturate in 16 bits unless weights keep to 7 bits",
        ),
        # ONNX Runtime's kernels for int8 by int8 use SDOT as it is; those for uint8 by int8 flip the weights' sign
        # bits first: https://github.com/microsoft/onnxruntime/pull/9902
        Scheme(
            name="arm64",
            instruction_sets=frozenset({"asimddp", "asimd"}),
            activation_type="int8",
            weight_type="int8",
            per_channel=True,
            reduce_range=False,
            symmetric_activations=False,
            highest_opset=23,
            why="NEON multiplies int8 by int8 as it is",
        ),
        # TensorRT takes no zero points and no quantised biases, fuses a Q/DQ pair on float32 weights, and fuses an
        # addition into the convolution before it where only the other branch is quantised. Opsets 9 to 20:
        # https://docs.nvidia.com/deeplearning/tensorrt/archives/tensorrt-1030/developer-guide/index.html
        Scheme(
            name="tensorrt",
            instruction_sets=frozenset(),
            activation_type="int8",
            weight_type="int8",
            per_channel=True,
            reduce_range=False,
            symmetric_activations=True,
            highest_opset=20,
            why="TensorRT's int8 is symmetric, and reads Q/DQ pairs as instructions",
            placement="products and residuals",
            float_weights=True,
        ),
        # The HTP backend runs what lies between Q/DQ pairs and nothing else, with a scale for each channel in
        # convolutions only: https://onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html
        Scheme(
            name="qnn",
            instruction_sets=frozenset(),
            activation_type="uint8",
            weight_type="int8",
            per_channel=True,
            reduce_range=False,
            symmetric_activations=False,
            highest_opset=21,
            why="Qualcomm's HTP computes what is quantised, and hands every other operator back to the processor",
            placement="everything",
            per_channel_operators=frozenset({"Conv", "ConvTranspose"}),
        ),
    )
}


def choose_scheme(requested: str, instruction_sets: Collection[str]) -> Scheme:
    """The scheme called `requested`, or for `auto` the first that suits a processor with these instruction sets.

    The choice made by `auto` is reported with its reason. Raises as `resolve` does.
    """
    scheme = resolve(requested, instruction_sets)
    if requested == "auto":
        found = ", ".join(sorted(scheme.instruction_sets.intersection(instruction_sets)))
        events.decided("int8 scheme", scheme.name, f"this processor has {found}: {scheme.why}")
    return scheme


def resolve(requested: str, instruction_sets: Collection[str]) -> Scheme:
    """As `choose_scheme`, and nothing is said.

    Raises UserError for an unknown name, and Unavailable where `auto` finds nothing.
    """
    if requested != "auto":
        if requested not in SCHEMES:
            raise UserError(f"There is no int8 scheme {requested!r}.{nearest(requested, [*SCHEMES, 'auto'])}")
        return SCHEMES[requested]
    for scheme in SCHEMES.values():
        if scheme.instruction_sets.intersection(instruction_sets):
            return scheme
    raise Unavailable(
        "No int8 scheme suits this processor, which has none of "
        f"{', '.join(sorted(frozenset[str]().union(*(scheme.instruction_sets for scheme in SCHEMES.values()))))}; "
        f"name the target's scheme instead: {', '.join(SCHEMES)}."
    )
