"""Pack the engine that is shipped of each student, and leave a few held-out images beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdeploy import artifacts, bundle, events
from kdeploy.bench.artifacts import role_of
from kdeploy.bench.results import Measurement
from kdeploy.bundle.info import SUFFIX
from kdeploy.errors import GateFailed, UserError
from kdeploy.recipe.networks import STUDENT, deployed
from kdeploy.stages import bench, gates
from kdeploy.stages.base import Run, spec


class Bundle:
    """Writes `<name>.kdz`, for further students `<name>-student-2.kdz` and so on, and images that show them at work.

    There is none of a student of which no engine holds the gates, and nothing where there is none of any.
    """

    name = "bundle"

    def inputs(self, run: Run) -> Mapping[str, Any]:
        files = run.files("engines/*/manifest.json", "bench/*.json", gates.FILE)
        return {
            "bundle": spec(run.recipe.bundle),
            "files": {str(path.relative_to(run.folder)): artifacts.sha256_file(path) for path in files},
        }

    def run(self, run: Run) -> Sequence[Path]:
        packed = []
        for role in deployed(run.recipe):
            target = bundle_file(run.folder, run.recipe.name, role)
            try:
                row = choose(run, role)
            except GateFailed as error:  # the run goes on to its report, and ends with the status of failed gates
                events.warn(str(error))
                target.unlink(missing_ok=True)
            else:
                pack(run, row, target)
                packed.append(target)
        return [*packed, *_leave_samples(run)] if packed else []


def bundle_file(folder: Path, name: str, role: str | None) -> Path:
    """Where the bundle of a network lies in the folder of a run of this name; only further students have their own."""
    further = role is not None and role.startswith(f"{STUDENT}-")
    return folder / f"{name}{f'-{role}' if further else ''}{SUFFIX}"


def pack(run: Run, row: str, target: Path) -> bundle.BundleInfo:
    """Pack the engine of a row into `target`."""
    name = bundle_file(run.folder, run.recipe.name, role_of(row)).stem
    return bundle.pack(run.folder / "engines" / row, target, name=name, provenance=provenance(run, row))


def choose(run: Run, role: str = STUDENT) -> str:
    """The row that is shipped of a student: the one the recipe names, or the fastest at batch 1 that holds the gates.

    The smallest that holds them, where an emulated processor has measured one.
    Raises GateFailed where none does, a UserError where none was measured.
    """
    if run.recipe.bundle.engine != "auto":
        return f"{role}-{run.recipe.bundle.engine}"
    failed = gates.failed_rows(run.folder)
    of_this = [found for found in bench.measurements(run.folder) if found.role == role]
    measured = [found for found in of_this if found.engine != "pytorch"]
    if not measured:
        raise UserError(f"{run.folder} holds no measured engine to choose from. Run its recipe again.")
    fit = [found for found in measured if found.name not in failed]
    if not fit:
        whose = "" if deployed(run.recipe) == [role] else f" of {role}"
        raise GateFailed(
            f"No engine{whose} holds the gates, so there is nothing to bundle; bundle.engine names one all the same."
        )
    if any(found.emulated is not None for found in fit):
        smallest = min(fit, key=lambda found: found.size_bytes)
        why = "the smallest engine that holds the gates; on an emulated processor nobody can say which is the fastest"
        events.decided("bundle", smallest.name, why)
        return smallest.name
    fastest = min(fit, key=_p50_ms)
    events.decided("bundle", fastest.name, f"fastest engine that holds the gates, {_p50_ms(fastest):.3g} ms at batch 1")
    return fastest.name


def _p50_ms(measured: Measurement) -> float:
    return next(latency.p50.value_ms for latency in measured.latency if latency.batch == 1)


def provenance(run: Run, row: str) -> dict[str, Any]:
    """From teacher to engine by hash: what a bundle says of its own making."""
    return {
        "run": run.recipe.name,
        "seed": run.recipe.seed,
        "engine": row,
        "kdeploy": run.record.kdeploy,
        "revision": run.record.revision,
        "recipe": artifacts.sha256_file(run.folder / "recipe.yaml"),
        "artifacts": {
            name: digest
            for stage, record in run.record.stages.items()
            if _leads_to(stage, row)
            for name, digest in record.outputs.items()
            if name.endswith((".safetensors", ".onnx"))
        },
    }


def _leads_to(stage: str, row: str) -> bool:
    """Whether an engine was made from what this stage left: all trainings, and what was made of its own network."""
    kind, _, name = stage.partition("/")
    if kind in ("export", "quantize"):
        return role_of(f"{name}-") == role_of(row)
    return kind == "networks" or stage == f"engines/{row}"


def _leave_samples(run: Run) -> list[Path]:
    """A few test images, of classes spread over the list, as `digit-7.png` or `<class>.png`."""
    from PIL import Image

    count, classes, test = run.recipe.bundle.samples, run.splits.classes, run.splits.test
    chosen = dict.fromkeys(round((number + 1) / (count + 1) * (len(classes) - 1)) for number in range(count))
    left = []
    for label in chosen:
        of_this = np.flatnonzero(test.labels == label)
        if not len(of_this):
            continue  # a class that the test split does not show
        image = test.images[int(of_this[0])]
        target = run.folder / f"{_file_name(classes[label])}.png"
        with artifacts.atomic_path(target) as temporary:
            Image.fromarray(image.squeeze(axis=2) if image.shape[2] == 1 else image).save(temporary, format="PNG")
        left.append(target)
    return left


def _file_name(label: str) -> str:
    if len(label) == 1 and label.isdigit():
        return f"digit-{label}"
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in label)
