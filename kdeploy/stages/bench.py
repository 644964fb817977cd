"""Measure each engine of a run: accuracy on the test split from the engine itself, latency, size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdeploy import artifacts, events
from kdeploy.bench.results import Measurement
from kdeploy.engines.base import MANIFEST
from kdeploy.stages import data
from kdeploy.stages.base import Run, spec
from kdeploy.stages.engines import BuildEngine


@dataclass(frozen=True)
class Bench:
    """Writes `bench/<row>.json`."""

    built: BuildEngine

    @property
    def name(self) -> str:
        return f"bench/{self.built.row}"

    def inputs(self, run: Run) -> Mapping[str, Any]:
        return {
            "bench": spec(run.recipe.bench),
            "engine": artifacts.sha256_file(run.folder / "engines" / self.built.row / MANIFEST),
            "images": data.fingerprint(run),
        }

    def run(self, run: Run) -> Sequence[Path]:
        from kdeploy.bench.artifacts import Artifact
        from kdeploy.bench.layers import with_layers
        from kdeploy.bench.measure import measure
        from kdeploy.bench.profiling import profile_all

        target = run.folder / "bench" / f"{self.built.row}.json"
        measured = measure(
            run.folder / "engines" / self.built.row,
            name=self.built.row,
            role=self.built.role,
            spec=run.recipe.bench,
            data=run.splits.test,
            split="test",
        )
        if run.recipe.bench.layers and measured.emulated is not None:
            events.warn(
                f"{self.built.row}: no times by layer, because the processor is emulated ({measured.emulated})."
            )
        elif run.recipe.bench.layers and self.built.asked.engine != "pytorch":  # torch eager has no layers of its own
            one = Artifact(self.built.row, self.built.role, run.folder / "engines" / self.built.row)
            measured = with_layers(measured, profile_all([one], threads=run.recipe.bench.threads))
        artifacts.write_json(target, measured.model_dump(mode="json"))
        return [target]


def measurements(folder: Path) -> list[Measurement]:
    """Everything measured in a run folder, in the order of the names of the rows."""
    return [Measurement.model_validate(artifacts.read_json(path)) for path in sorted((folder / "bench").glob("*.json"))]
