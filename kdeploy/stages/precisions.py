"""Which ONNX file an engine is made from, where a run may hold several of one precision."""

from __future__ import annotations

from collections.abc import Sequence

from kdeploy.machine import instruction_sets
from kdeploy.quantize.schemes import resolve
from kdeploy.recipe.schema import EngineSpec
from kdeploy.recipe.schema.deploying import told_apart

FLOAT32 = "float32"
INTEGER = ("int8", "mixed")
CARD_VERSION = 2
"""Of what stands beside each file: what it was made of, and its accuracy."""


def label(asked: EngineSpec, engines: Sequence[EngineSpec]) -> str:
    """What stands between the role and `.onnx`: float32, float16, int8-x86-vnni, ...

    Engines that ask for the same share a file. Of two files of one precision and scheme, what differs is added:
    int8-x86-vnni-entropy. engines: all of the recipe. Raises Unavailable where `scheme: auto` finds nothing.
    """
    stem = _stem(asked)
    alike = [_options(engine) for engine in engines if _stem(engine) == stem]
    mine = _options(asked)
    return stem + told_apart([mine, *alike])[0]


def made_of_float32(engines: Sequence[EngineSpec]) -> dict[str, EngineSpec]:
    """The files of lower precision that these engines need, by their label."""
    return {label(engine, engines): engine for engine in engines if _stem(engine) != FLOAT32}


def _stem(engine: EngineSpec) -> str:
    if engine.precision in INTEGER:
        return f"{engine.precision}-{resolve(engine.scheme, instruction_sets()).name}"
    # ONNX's operators have no bfloat16 form at these opsets: an engine that computes in it casts float32 itself.
    return FLOAT32 if engine.precision == "bfloat16" else engine.precision


def _options(engine: EngineSpec) -> dict[str, str]:
    """What decides the file beside its stem."""
    return {option: value for option, value in engine.decides.items() if option != "scheme"}
