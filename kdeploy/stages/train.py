"""The trainings of a run, one stage a network; the recipe's procedure says which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdeploy import events
from kdeploy.artifacts import sha256_file, sha256_json, write_text
from kdeploy.stages import data
from kdeploy.stages.base import Run

if TYPE_CHECKING:
    from kdeploy.recipe.schema import Recipe
    from kdeploy.training.procedures.base import Job


_STATE_OF = "state-of"
"""A file beside the state of a training, with the hash of the inputs that it is a training on."""


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
        role = self.job.role
        note = run.folder / "networks" / role / _STATE_OF
        _forget_other_state(note, sha256_json(self.inputs(run)))
        self.job.run(run.workshop)
        note.unlink()
        return run.files(*(pattern for each in (role, *self.job.beside) for pattern in _patterns(each)))


def plan(recipe: Recipe) -> list[Train]:
    """The trainings that this recipe asks for, in order."""
    from kdeploy.training import procedures

    return [Train(job) for job in procedures.find(recipe.distill.procedure).jobs(recipe)]


def _patterns(role: str) -> list[str]:
    """What a training leaves of a network."""
    kinds = ("safetensors", "json")
    weights = [f"networks/{role}/{role}{which}.{kind}" for which in ("", "-last", "-chosen") for kind in kinds]
    return [*weights, f"networks/{role}/history.json", f"networks/{role}/metrics.jsonl"]


def _forget_other_state(note: Path, key: str) -> None:
    """Remove the state of an interrupted training on other inputs, such as data that have changed since."""
    if note.is_file() and note.read_text(encoding="utf-8") != key:
        from kdeploy.training import state

        events.warn(
            f"{note.parent}: what this training starts from has changed since it was interrupted; it starts again."
        )
        state.clear(note.parent)
    write_text(note, key)


def _weights(run: Run, role: str) -> str:
    """The hash of a finished network's weights; its history and card hold times, which do not matter here."""
    return run.outputs_of(f"networks/{role}")[f"networks/{role}/{role}.safetensors"]
