"""The trainings of a run, one stage a network; the recipe's procedure says which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdeploy.artifacts import sha256_file
from kdeploy.stages import data
from kdeploy.stages.base import Run

if TYPE_CHECKING:
    from kdeploy.recipe.schema import Recipe
    from kdeploy.training.procedures.base import Job


@dataclass(frozen=True)
class Train:
    """Trains one network and leaves it in `networks/<role>/`."""

    job: Job

    @property
    def name(self) -> str:
        return f"networks/{self.job.role}"

    def inputs(self, run: Run) -> Mapping[str, Any]:
        checkpoint = self.job.inputs.get("network", {}).get("checkpoint")
        return {
            **self.job.inputs,
            "seed": self.job.seed,
            "checkpoint": None if checkpoint is None else sha256_file(Path(checkpoint)),
            "images": data.fingerprint(run),
            "before": {role: _weights(run, role) for role in self.job.needs},
        }

    def run(self, run: Run) -> Sequence[Path]:
        self.job.run(run.workshop)
        role = self.job.role
        return run.files(f"networks/{role}/*.safetensors", f"networks/{role}/*.json", f"networks/{role}/*.jsonl")


def plan(recipe: Recipe) -> list[Train]:
    """The trainings that this recipe asks for, in order."""
    from kdeploy.training import procedures

    return [Train(job) for job in procedures.find(recipe.distill.procedure).jobs(recipe)]


def _weights(run: Run, role: str) -> str:
    """The hash of a finished network's weights; its history and card hold times, which do not matter here."""
    return run.record.stages[f"networks/{role}"].outputs[f"networks/{role}/{role}.safetensors"]
