"""Which ONNX file an engine is made from, where a run may hold several of one precision."""

from __future__ import annotations

from collections.abc import Sequence

from kdeploy.machine import instruction_sets
from kdeploy.quantize.schemes import resolve
from kdeploy.recipe.schema import EngineSpec
from kdeploy.recipe.schema.deploying import told_apart

FLOAT32 = "float32"
INTEGER = ("int8", "mixed")


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
    precision = source_precision(engine)
    return f"{precision}-{resolve(engine.scheme, instruction_sets()).name}" if precision in INTEGER else precision


def source_precision(engine: EngineSpec) -> str:
    """The precision of the ONNX file that this engine is built from."""
    from kdeploy import engines

    return engines.find(engine.engine).precisions.get(engine.precision, engine.precision)


def _options(engine: EngineSpec) -> dict[str, str]:
    """What decides the file beside its stem."""
    return {option: value for option, value in engine.decides.items() if option != "scheme"}
