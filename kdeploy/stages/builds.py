"""Engines to be built on another device: what the device needs for it in one file beside the ONNX files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from kdeploy import artifacts, engines, events, machine
from kdeploy.engines.base import Manifest
from kdeploy.errors import UserError
from kdeploy.stages.base import Run
from kdeploy.stages.engines import BuildEngine

SUFFIX = ".build.json"
_OF_THE_DEVICE = ("board", "processor", "architecture", "kernel", "nvidia_driver")


class Build(BaseModel):
    """One engine. source: its ONNX file, relative to the plan's folder. row: the name of its folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    row: str
    manifest: Manifest
    """What is known before the build."""


class Plan(BaseModel):
    """What is to be built."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    builds: tuple[Build, ...]


def plan(run: Run, stages: Sequence[BuildEngine]) -> Plan:
    """The engines of a run, whose ONNX files lie there by now."""
    return Plan(
        builds=tuple(
            Build(source=stage.source(run).name, row=stage.row, manifest=stage.manifest(run)) for stage in stages
        )
    )


def read(path: Path) -> Plan:
    """A plan from its file. Raises UserError for what is none, or wants files from outside its folder."""
    content = artifacts.read_json(path)
    try:
        found = Plan.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the whole"
        raise UserError(f"{path} is no plan of engines that this kdeploy can read: {key}: {first['msg']}.") from None
    for build in found.builds:
        for name in (build.source, build.row):
            if Path(name).name != name:
                raise UserError(f"{path} names {name!r}, which is not beside it; it was refused.")
    return found


def carry_out(path: Path, out: Path) -> list[Manifest]:
    """Build each engine of the plan at `path` into `out/<row>/`; each says in its manifest where it was built.

    Raises what `Engine.build` does, and Unavailable for a runtime that this machine lacks; the engines before it stay.
    """
    asked = read(path)
    here = machine.fingerprint()
    device = {name: here[name] for name in _OF_THE_DEVICE if here.get(name)}
    for build in asked.builds:
        engines.require(engines.find(build.manifest.engine))
    built = []
    for build in asked.builds:
        known = build.manifest.model_copy(update={"details": {**build.manifest.details, "built_on": device}})
        with events.task(f"build {build.row}"):
            engine = engines.find(build.manifest.engine)
            built.append(engine.build(path.parent / build.source, out / build.row, known))
    return built
