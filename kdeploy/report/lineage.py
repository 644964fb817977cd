"""From teacher to engine by hash: which file was made from which, as the run's own record has it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Protocol

from kdeploy.bench.results import Measurement
from kdeploy.report.data import Made
from kdeploy.report.rows import display_name

_SHA256 = re.compile(r"[0-9a-f]{64}")
_BESIDE = {".json", ".jsonl", ".png", ".html", ".svg", ".log"}
"""Cards, records and pictures beside the files that are made from one another."""


class Outcome(Protocol):
    """What is read of a finished stage (`provenance.StageRecord`)."""

    @property
    def inputs(self) -> Mapping[str, Any]: ...

    @property
    def outputs(self) -> Mapping[str, str]: ...


def lineage(
    stages: Mapping[str, Outcome], measurements: Sequence[Measurement], bundles: Mapping[str, str]
) -> tuple[Made, ...]:
    """Checkpoints, networks, graphs, engines and bundles, each after what it was made from.

    One file was made from another where the SHA-256 of the other stands among the inputs of the stage that made it.
    Files that lead to no engine are left out. bundles: from a bundle's path in the run folder to the measurement of
    the engine that it holds.
    """
    files = [*_outside(stages), *_inside(stages)]
    by_hash = {made.sha256: made for made in reversed(files)}
    engines = {one.name: engine for one in measurements if (engine := _engine(one, stages)) is not None}
    linked = [_linked(made, stages, by_hash) for made in [*files, *engines.values()]]
    packed = [
        Made(name="bundle", file=file, sha256=digest, stage="bundle", made_from=(engines[bundles[file]].file,))
        for file, digest in (stages["bundle"].outputs.items() if "bundle" in stages else ())
        if bundles.get(file) in engines
    ]
    known = {made.file: made for made in [*linked, *packed]}
    shipped = {made.file for made in _upstream([made.file for made in packed], known)}
    shown = _upstream([*(engine.file for engine in engines.values()), *(made.file for made in packed)], known)
    return tuple(made.model_copy(update={"ships": made.file in shipped}) for made in shown)


def _outside(stages: Mapping[str, Outcome]) -> Iterator[Made]:
    """Checkpoints that somebody else trained."""
    for stage, outcome in stages.items():
        digest, network = outcome.inputs.get("checkpoint"), outcome.inputs.get("network")
        if stage.startswith("networks/") and isinstance(digest, str) and isinstance(network, dict):
            role = stage.partition("/")[2]
            file = PurePosixPath(str(network.get("checkpoint"))).name
            yield Made(name=f"checkpoint of {role}", file=file, sha256=digest, stage=None, made_from=())


def _inside(stages: Mapping[str, Outcome]) -> Iterator[Made]:
    """Weights and graphs that the run made."""
    for stage, outcome in stages.items():
        if not stage.startswith("engines/") and stage != "bundle":
            for file, digest in outcome.outputs.items():
                if PurePosixPath(file).suffix not in _BESIDE:
                    yield Made(name=_name(file), file=file, sha256=digest, stage=stage, made_from=())


def _name(file: str) -> str:
    """ "student" for its weights, "student · ONNX int8-x86-vnni" for a graph of it."""
    path = PurePosixPath(file)
    if path.suffix != ".onnx":
        return path.stem
    role, _, label = path.stem.partition(".")
    return f"{role} · ONNX {label}".rstrip()


def _engine(measurement: Measurement, stages: Mapping[str, Outcome]) -> Made | None:
    """The engine's main file; None where its stage is not in the record."""
    stage = f"engines/{measurement.name}"
    outputs = stages[stage].outputs if stage in stages else {}
    file = next((file for file, digest in outputs.items() if digest == measurement.artifact), None)
    if file is None:
        return None
    return Made(name=display_name(measurement), file=file, sha256=measurement.artifact, stage=stage, made_from=())


def _linked(made: Made, stages: Mapping[str, Outcome], by_hash: Mapping[str, Made]) -> Made:
    """With the files that its stage read."""
    if made.stage is None:
        return made
    read = [by_hash[digest] for digest in _hashes(stages[made.stage].inputs) if digest in by_hash]
    others = dict.fromkeys(one.file for one in read if one.stage != made.stage)
    return made.model_copy(update={"made_from": tuple(others)})


def _hashes(content: Any) -> Iterator[str]:
    """Every SHA-256 in nested lists and dictionaries."""
    if isinstance(content, str) and _SHA256.fullmatch(content):
        yield content
    elif isinstance(content, Mapping):
        for inner in content.values():
            yield from _hashes(inner)
    elif isinstance(content, list | tuple):
        for inner in content:
            yield from _hashes(inner)


def _upstream(files: Iterable[str], known: Mapping[str, Made]) -> list[Made]:
    """These files and all that they were made from, each after its own."""
    found: dict[str, Made] = {}
    seen = set()

    def visit(file: str) -> None:
        if file not in seen:
            seen.add(file)
            for before in known[file].made_from:
                visit(before)
            found[file] = known[file]

    for file in files:
        visit(file)
    return list(found.values())
