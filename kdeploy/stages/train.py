"""The trainings of a run, one stage a network; the recipe's procedure says which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdeploy.artifacts import sha256_file
from kdeploy.recipe.schema import INDIFFERENT
from kdeploy.stages import data, interrupted
from kdeploy.stages.base import NO_MORE, Run

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
            **_deciding(self.job.inputs),
            "seed": self.job.seed,
            "checkpoint": None if checkpoint is None else sha256_file(Path(checkpoint)),
            "images": data.fingerprint(run),
            "before": {role: _weights(run, role) for role in self.job.needs},
        }

    def run(self, run: Run) -> Sequence[Path]:
        role = self.job.role
        folder = run.folder / "networks" / role
        interrupted.begin(folder, self.inputs(run), device=run.workshop.device.type, chosen=run.device != "auto")
        shop = run.workshop
        shop.processes.from_first(self.name)  # the data are read and cached: the others can begin
        self.job.run(shop)
        interrupted.end(folder)
        patterns = [pattern for each in (role, *self.job.beside) for pattern in _patterns(each)]
        return run.files(*patterns, *self.job.files)


def take_part(run: Run, stages: Sequence[Train]) -> None:
    """Take part in the trainings that the first process begins, as another one, until it has no more of them."""
    assert run.processes is not None
    jobs = {stage.name: stage.job for stage in stages}
    while (name := run.processes.from_first(NO_MORE)) != NO_MORE:
        jobs[name].run(run.workshop)


def plan(recipe: Recipe) -> list[Train]:
    """The trainings that this recipe asks for, in order."""
    from kdeploy.training import procedures

    return [Train(job) for job in procedures.find(recipe.distill.procedure).jobs(recipe)]


def _patterns(role: str) -> list[str]:
    """What a training leaves of a network."""
    kinds = ("safetensors", "json")
    weights = [f"networks/{role}/{role}{which}.{kind}" for which in ("", "-last", "-chosen") for kind in kinds]
    return [*weights, f"networks/{role}/history.json", f"networks/{role}/metrics.jsonl"]


def _deciding(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a job without those fields of a training that its weights do not depend on."""
    return {
        key: _deciding(value) if isinstance(value, Mapping) and key != "options" else value
        for key, value in inputs.items()
        if key not in INDIFFERENT
    }


def _weights(run: Run, role: str) -> str:
    """The hash of a finished network's weights; its history and card hold times, which do not matter here."""
    return run.outputs_of(f"networks/{role}")[f"networks/{role}/{role}.safetensors"]
