"""Who made what from what: the record `run.json` of a run folder."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

import kdeploy
from kdeploy import artifacts, machine
from kdeploy.errors import UserError

RECORD = "run.json"


class StageRecord(BaseModel):
    """One finished stage: the hash of its inputs, and the SHA-256 of each file that it wrote."""

    model_config = ConfigDict(extra="forbid")

    key: str
    inputs: dict[str, Any]
    outputs: dict[str, str]
    seconds: float
    finished_at: str


class RunRecord(BaseModel):
    """Everything a run knows of its own making."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    name: str
    kdeploy: str
    revision: str | None
    seed: int
    created_at: str
    machine: dict[str, Any]
    stages: dict[str, StageRecord] = {}

    @classmethod
    def new(cls, name: str, seed: int) -> RunRecord:
        return cls(
            name=name,
            kdeploy=kdeploy.__version__,
            revision=revision(),
            seed=seed,
            created_at=now(),
            machine=machine.fingerprint(),
        )

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """The record of a run folder; a UserError where there is none or it is not one."""
        path = folder / RECORD
        if not path.is_file():
            raise UserError(f"{folder} is not a run: it has no {RECORD}. `kdeploy runs` lists the runs.")
        try:
            return cls.model_validate(artifacts.read_json(path))
        except ValidationError:
            raise UserError(f"{path} is not the record of a run that this version of kdeploy can read.") from None

    def write(self, folder: Path) -> None:
        artifacts.write_json(folder / RECORD, self.model_dump(mode="json"))

    def finished(self, stage: str, key: str, folder: Path) -> bool:
        """Whether a stage was done with the same inputs and its files are there, whole."""
        record = self.stages.get(stage)
        if record is None or record.key != key:
            return False
        return all(
            (folder / name).is_file() and artifacts.sha256_file(folder / name) == digest
            for name, digest in record.outputs.items()
        )

    def enter(self, stage: str, inputs: Mapping[str, Any], outputs: list[Path], folder: Path, started: float) -> None:
        """Write down a finished stage; `started` is its time.monotonic()."""
        self.stages[stage] = StageRecord(
            key=artifacts.sha256_json(dict(inputs)),
            inputs=dict(inputs),
            outputs={str(path.relative_to(folder)): artifacts.sha256_file(path) for path in sorted(outputs)},
            seconds=round(time.monotonic() - started, 3),
            finished_at=now(),
        )
        self.write(folder)


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def revision() -> str | None:
    """The git revision of this kdeploy where it runs from a checkout, with "+" for uncommitted changes.

    None where it is installed, also in an environment that lies inside somebody's checkout.
    """
    folder = Path(__file__).parent
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name, at=folder)
        found = _git("rev-parse", "HEAD", at=folder)
        return found + ("+" if _git("status", "--porcelain", "--untracked-files=no", at=folder) else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*words: str, at: Path) -> str:
    done = subprocess.run(["git", *words], cwd=at, check=True, capture_output=True, text=True)
    return done.stdout.strip()
