"""Pack the engine that is shipped, and leave a few held-out images beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdeploy import artifacts, bundle, events
from kdeploy.bench.results import Measurement
from kdeploy.errors import GateFailed, UserError
from kdeploy.stages import bench, gates
from kdeploy.stages.base import Run, spec


class Bundle:
    """Writes `<name>.kdz` and the images that show it at work; nothing where no engine holds the gates."""

    name = "bundle"

    def inputs(self, run: Run) -> Mapping[str, Any]:
        files = run.files("engines/*/manifest.json", "bench/*.json", gates.FILE)
        return {
            "bundle": spec(run.recipe.bundle),
            "files": {str(path.relative_to(run.folder)): artifacts.sha256_file(path) for path in files},
        }

    def run(self, run: Run) -> Sequence[Path]:
        target = run.folder / f"{run.recipe.name}.kdz"
        try:
            row = choose(run)
        except GateFailed as error:  # the run goes on to its report, and ends with the status of failed gates
            events.warn(str(error))
            target.unlink(missing_ok=True)
            return []
        bundle.pack(run.folder / "engines" / row, target, name=run.recipe.name, provenance=provenance(run, row))
        return [target, *_leave_samples(run)]


def choose(run: Run) -> str:
    """The row that is shipped: the one the recipe names, or the fastest at batch 1 that holds the gates.

    Raises GateFailed where none does, a UserError where none was measured.
    """
    if run.recipe.bundle.engine != "auto":
        return f"student-{run.recipe.bundle.engine}"
    failed = gates.failed_rows(run.folder)
    students = [found for found in bench.measurements(run.folder) if found.role == "student"]
    measured = [found for found in students if found.engine != "pytorch"]
    if not measured:
        raise UserError(f"{run.folder} holds no measured engine to choose from. Run its recipe again.")
    fit = [found for found in measured if found.name not in failed]
    if not fit:
        raise GateFailed(
            "No engine holds the gates, so there is nothing to bundle; bundle.engine names one all the same."
        )
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
            if stage.startswith(("networks/", "export/student", "quantize/student", f"engines/{row}"))
            for name, digest in record.outputs.items()
            if name.endswith((".safetensors", ".onnx"))
        },
    }


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
