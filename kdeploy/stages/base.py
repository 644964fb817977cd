"""What a stage of a run is, and the run that it works on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kdeploy import sources
from kdeploy.errors import UserError
from kdeploy.provenance import RunRecord, StageRecord
from kdeploy.recipe import procedures
from kdeploy.recipe.schema import Recipe
from kdeploy.sources.base import Splits

if TYPE_CHECKING:
    from kdeploy.training.procedures.base import Workshop
    from kdeploy.training.processes import Processes


NO_MORE = ""
"""What the first process tells the others in place of the name of a training."""


@dataclass
class Run:
    """A run folder with its recipe and record.

    processes: the others that train with this one, which is the first and does all that is no training; None: nobody.
    """

    recipe: Recipe
    folder: Path
    record: RunRecord
    device: str = "auto"
    processes: Processes | None = None

    @cached_property
    def splits(self) -> Splits:
        """The data, read once a process: of a procedure without training images the test images alone."""
        opens = procedures.opens_training_images(self.recipe)
        return sources.load(self.recipe.data, base=self.folder, training_images=opens)

    @cached_property
    def workshop(self) -> Workshop:
        """What trainings work with, made once so that its tensors are."""
        from kdeploy.training.procedures.base import Workshop
        from kdeploy.training.processes import ALONE
        from kdeploy.training.setup import choose_device

        processes = self.processes or ALONE
        return Workshop(
            recipe=self.recipe,
            base=self.folder,
            networks=self.folder / "networks",
            splits=self.splits,
            device=processes.device or choose_device(self.device),
            processes=processes,
        )

    @property
    def images_in_words(self) -> str | None:
        """What its images are; None: those of the recipe."""
        return None

    @property
    def labelled(self) -> bool:
        """Whether accuracy can be measured on its validation images: they have labels, which are its classes."""
        return self.splits.has_training_images

    def dismiss(self) -> None:
        """Tell the other processes that there is nothing more to train."""
        if self.processes is not None:
            self.processes.from_first(NO_MORE)

    def outputs_of(self, *stages: str) -> dict[str, str]:
        """The hashes of what earlier stages wrote: the part of a stage's inputs that lies on disk."""
        return {name: digest for stage in stages for name, digest in self._finished(stage).outputs.items()}

    def trained(self, role: str) -> dict[str, str]:
        """The hashes of what its training left of a network, in whichever stage it was trained: some train several."""
        folder = f"networks/{role}/"
        found = {
            name: digest
            for stage, record in self.record.stages.items()
            for name, digest in record.outputs.items()
            if stage.startswith("networks/") and name.startswith(folder)
        }
        return found or self.outputs_of(f"networks/{role}")

    def _finished(self, stage: str) -> StageRecord:
        if stage not in self.record.stages:
            raise UserError(f"{self.folder} has no {stage} yet: its run did not come so far. Run its recipe again.")
        return self.record.stages[stage]

    def files(self, *patterns: str) -> list[Path]:
        """The files of the run folder that match these patterns."""
        return sorted(path for pattern in patterns for path in self.folder.glob(pattern) if path.is_file())


class Stage(Protocol):
    """One step of a run. It reads artefacts of the folder, and writes others."""

    @property
    def name(self) -> str:
        """Its name in the record of a run, such as `networks/student`."""

    def inputs(self, run: Run) -> Mapping[str, Any]:
        """What decides its outputs, JSON-able: parts of the recipe and hashes of earlier artefacts."""

    def run(self, run: Run) -> Sequence[Path]:
        """Do the work; return the files written."""


def spec(part: Any) -> Any:
    """A part of a recipe as plain JSON."""
    return part.model_dump(mode="json")
