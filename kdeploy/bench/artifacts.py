"""What `kdeploy bench ARTIFACT` accepts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from kdeploy.engines.base import MANIFEST
from kdeploy.errors import UserError

_ROLE = re.compile(r"((?:teacher|assistant|alone|student|peer)(?:-\d+)?)-")
_FILES = (".kdz", ".onnx", ".ort")
_ACCEPTED = "an engine folder, a run's folder, a bundle (.kdz) or an ONNX file"


@dataclass(frozen=True)
class Artifact:
    """Something to measure: the row's name, its role (`results.Measurement.role`), and what `measure` is given."""

    name: str
    role: str
    path: Path


def resolve(path: Path) -> list[Artifact]:
    """The artefacts behind a path: one for a bundle, an ONNX file or an engine folder, all engines of a run.

    Raises UserError where it is none of these. Contents are verified when they are measured.
    """
    if path.is_file():
        if path.suffix not in _FILES:
            raise UserError(f"{path} can't be measured: give {_ACCEPTED}.")
        return [Artifact(path.stem, "file", path)]
    if not path.is_dir():
        raise UserError(f"There is no {path}. Give {_ACCEPTED}.")
    if (path / MANIFEST).is_file():
        return [_engine(path)]
    built = sorted(path.glob(f"engines/*/{MANIFEST}"))
    if not built:
        raise UserError(f"{path} holds no engine: give {_ACCEPTED}.")
    return [_engine(manifest.parent) for manifest in built]


def role_of(row: str) -> str | None:
    """The network of a row: `student-2` of `student-2-onnxruntime-int8`; None where its name does not say."""
    found = _ROLE.match(row)
    return found[1] if found else None


def _engine(folder: Path) -> Artifact:
    """Inside a run the name says whose engine it is: `teacher-onnxruntime-float32`; without that, the student's."""
    folder = folder.resolve()
    if folder.parent.name != "engines":
        return Artifact(folder.name, "file", folder)
    return Artifact(folder.name, role_of(folder.name) or "student", folder)
