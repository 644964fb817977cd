"""What a run, or several seeds of one, found: rows, gates and paths, for tables, JSON and the last lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kdeploy import artifacts, bundle
from kdeploy.errors import UserError
from kdeploy.parity import Parity
from kdeploy.provenance import RunRecord, now
from kdeploy.recipe.networks import STUDENT, baseline_role
from kdeploy.report.beside import LETTERS, beside
from kdeploy.report.data import Device, Epoch, Gate, LayerCost, ReportData, ReportedEpochs, Sensitivity, Stage
from kdeploy.report.lineage import lineage
from kdeploy.report.rows import Row, baseline_of, rows_from
from kdeploy.report.seeds import Mean, accuracy_gain, aggregate
from kdeploy.report.verdicts import int8_failures
from kdeploy.stages import devices, gates
from kdeploy.stages.bench import measurements
from kdeploy.stages.bundle import bundle_file

_BASELINES = ("teacher-pytorch", "alone-pytorch", "student-pytorch")
"""What ratios refer to: the first of these that was measured; a run whose networks teach one another has no teacher."""
METRICS = "metrics.jsonl"
NOTES = "notes.json"


@dataclass(frozen=True)
class RunResults:
    """What one run found."""

    folder: Path
    record: RunRecord
    baseline: str
    """Name of the row that ratios refer to."""
    rows: list[Row]
    gates: list[Gate]

    @property
    def failed(self) -> list[Gate]:
        return [gate for gate in self.gates if not gate.passed]

    @property
    def int8_failures(self) -> list[str]:
        """A sentence for each int8 engine that is slower here than float32, or loses more than the gates allow."""
        recipe = yaml.safe_load((self.folder / "recipe.yaml").read_text(encoding="utf-8"))
        allowed = recipe.get("gates", {}).get("int8_drop_points")
        return int8_failures(measurements(self.folder), allowed)

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def students(self) -> list[str]:
        """The roles of the students, in the order of the table: one, or those of an online ensemble."""
        return list(dict.fromkeys(row.role for row in self.rows if row.role.partition("-")[0] == STUDENT))

    @property
    def bundle(self) -> Path:
        """Where the student's is, or would be."""
        return bundle_file(self.folder, self.record.name, STUDENT)

    @property
    def bundles(self) -> dict[str, Path]:
        """The bundles that there are, by the role of the student."""
        found = {role: bundle_file(self.folder, self.record.name, role) for role in self.students}
        return {role: path for role, path in found.items() if path.exists()}

    @property
    def samples(self) -> list[Path]:
        """The held-out images beside the bundles."""
        left = self.record.stages["bundle"].outputs if "bundle" in self.record.stages else {}
        return [self.folder / name for name in left if name.endswith(".png")]

    def to_json(self) -> dict[str, Any]:
        """JSON-able, schema_version 1: `rows` as in the table, `gates`, and the paths."""
        return {
            "schema_version": 1,
            "run": self.record.name,
            "seed": self.record.seed,
            "rows": [row.model_dump() for row in self.rows],
            "gates": [gate.model_dump() for gate in self.gates],
            "int8_failures": self.int8_failures,
            "devices": [device.model_dump(mode="json") for device in on_devices(self.folder)],
            "report": str(self.report),
            "bundle": str(self.bundle) if self.bundle.exists() else None,
            "bundles": {role: str(path) for role, path in self.bundles.items()},
            "machine": self.record.machine,
        }


def read(folder: Path) -> RunResults:
    """The results of a run folder; a UserError where nothing was measured yet."""
    record = RunRecord.read(folder)
    measured = measurements(folder)
    if not measured:
        raise UserError(f"{folder} holds no measurement yet. `kdeploy run` with its recipe measures it.")
    names = [measurement.name for measurement in measured]
    baseline = next((name for name in _BASELINES if name in names), names[0])
    return RunResults(folder, record, baseline, rows_from(measured, baseline=baseline), gates.read(folder))


def report_data(folder: Path, siblings: Sequence[RunResults] = ()) -> ReportData:
    """Everything that the report of a run shows; siblings: all seeds of it, where there are several."""
    found = read(folder)
    record = found.record
    several = len(siblings) > 1
    measured = measurements(folder)
    shipped = {role: _shipped(path) for role, path in found.bundles.items()}
    held = {str(path.relative_to(folder)): shipped[role] for role, path in found.bundles.items()}
    gains = gains_over_alone(siblings) if several else {}
    return ReportData(
        title=record.name,
        about=str(yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8")).get("about", "")),
        created=now(),
        kdeploy=record.kdeploy,
        revision=record.revision,
        seed=record.seed,
        recipe_yaml=(folder / "recipe.yaml").read_text(encoding="utf-8"),
        baseline=found.baseline,
        shipped=shipped.pop(STUDENT, None),
        also_shipped=tuple(shipped.values()),
        rows=tuple(found.rows),
        seeds=tuple(aggregate([run.rows for run in siblings])) if several else (),
        gain=gains.pop(STUDENT, None),
        further_gains=gains,
        measurements=tuple(measured),
        curves={path.parent.name: _curve(path) for path in sorted(folder.glob(f"networks/*/{METRICS}"))},
        epochs={path.parent.name: _epochs(path) for path in sorted(folder.glob("networks/*/epochs.json"))},
        parity={
            path.name.replace(".parity.json", ".onnx"): Parity.model_validate(artifacts.read_json(path))
            for path in sorted(folder.glob("export/*.parity.json"))
        },
        gates=tuple(found.gates),
        int8_failures=tuple(found.int8_failures),
        provenance=tuple(
            Stage(name=name, seconds=stage.seconds, outputs=stage.outputs) for name, stage in record.stages.items()
        ),
        lineage=lineage(record.stages, [one for row in found.rows for one in measured if one.name == row.key], held),
        sensitivity=_sensitivity(folder),
        machine=record.machine,
        devices=on_devices(folder),
        warnings=_warnings(folder),
        notes=_notes(folder),
        paths={"run": str(folder), **_bundle_paths(found)},
    )


def on_devices(folder: Path) -> tuple[Device, ...]:
    """What was measured of a run on other machines. The teacher is what their ratios refer to, where it is there."""
    found = []
    for name, measured in devices.measured_on(folder).items():
        last = max(measured, key=lambda one: one.measured_at)
        rows = tuple(rows_from(measured, baseline=baseline_of(measured)))
        old = tuple(devices.measured_before(folder, name, measured))
        found.append(Device(name=name, rows=rows, machine=last.machine, measured_at=last.measured_at, outdated=old))
    return tuple(found)


def _shipped(packed: Path) -> str:
    """The row that a bundle holds, from the bundle itself."""
    return str(bundle.inspect(packed).provenance["engine"])


def _bundle_paths(found: RunResults) -> dict[str, str]:
    """Each student's bundle, by what the report calls it."""
    names = {role: "bundle" if role == STUDENT else f"bundle of {role}" for role in [STUDENT, *found.students]}
    return {name: str(found.bundles.get(role, "not packed")) for role, name in names.items()}


def _curve(path: Path) -> tuple[Epoch, ...]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(Epoch.model_validate(json.loads(line)) for line in lines)


def _epochs(path: Path) -> ReportedEpochs:
    return ReportedEpochs.model_validate(artifacts.read_json(path))


def _sensitivity(folder: Path) -> tuple[Sensitivity, ...]:
    """What `kdeploy sensitivity` measured, and what was measured to choose the layers of mixed files."""
    asked = [(path, artifacts.read_json(path)) for path in sorted(folder.glob("sensitivity/*.json"))]
    cards = [(path, artifacts.read_json(path)) for path in sorted(folder.glob("export/*.json"))]
    named = {f"{found['role']}, {found['scheme']}": (found["layers"], ()) for _, found in asked}
    for path, card in cards:
        if "sensitivity" in card:
            named[f"{path.stem}.onnx"] = (card["sensitivity"], card.get("kept_float32", ()))
    return tuple(
        Sensitivity(name=name, layers=tuple(map(LayerCost.model_validate, layers)), kept_float32=tuple(kept))
        for name, (layers, kept) in named.items()
    )


def _warnings(folder: Path) -> tuple[str, ...]:
    """What was warned of while the run was made, each once."""
    log = folder / "run.log"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return tuple(dict.fromkeys(line.split("warning: ", 1)[1] for line in lines if " warning: " in line))


def _notes(folder: Path) -> tuple[str, ...]:
    """What procedures left to say, network by network."""
    found = (artifacts.read_json(path)["notes"] for path in sorted(folder.glob(f"networks/*/{NOTES}")))
    return tuple(str(note) for notes in found for note in notes)


def are_seeds(runs: Sequence[RunResults]) -> bool:
    """Whether these are several seeds of one recipe."""
    seeds = {run.record.seed for run in runs}
    return len({run.record.name for run in runs}) == 1 < len(runs) == len(seeds)


def on_one_page(runs: Sequence[RunResults]) -> tuple[ReportData, dict[int, Sequence[Row]]]:
    """The report of one run, of the seeds of one recipe, or of any runs beside each other; and its rows by seed."""
    if len(runs) == 1 or are_seeds(runs):
        return report_data(runs[0].folder, runs), {run.record.seed: run.rows for run in runs}
    together = beside([report_data(run.folder) for run in runs])
    return together, {together.seed: together.rows}


def letters(runs: Sequence[RunResults]) -> list[str]:
    """Where runs stand beside each other, which letter is which: "A  runs/one"; otherwise none."""
    if len(runs) == 1 or are_seeds(runs):
        return []
    return [f"{letter}  {run.folder}" for letter, run in zip(LETTERS, runs, strict=False)]


def page_to_json(runs: Sequence[RunResults], page: ReportData) -> dict[str, Any]:
    """JSON-able, schema_version 1: as a run's own, as that of its seeds, or each run with the rows of all.

    page: what `on_one_page` made of them.
    """
    if len(runs) == 1:
        return runs[0].to_json()
    if are_seeds(runs):
        return seeds_to_json(runs)
    return {
        "schema_version": 1,
        "runs": [run.to_json() for run in runs],
        "rows": [row.model_dump() for row in page.rows],
    }


def seeds_to_json(runs: Sequence[RunResults]) -> dict[str, Any]:
    """JSON-able, schema_version 1: the rows of each seed, their means, and what distillation gained."""
    per_seed = [run.rows for run in runs]
    gains = {role: gain.model_dump() for role, gain in gains_over_alone(runs).items()}
    return {
        "schema_version": 1,
        "run": runs[0].record.name,
        "seeds": {str(run.record.seed): run.to_json() for run in runs},
        "means": [row.model_dump() for row in aggregate(per_seed)],
        "gain_over_alone": gains.get(STUDENT),
        "gains_over_alone": gains,
        "machine": runs[0].record.machine,
    }


def gains_over_alone(runs: Sequence[RunResults]) -> dict[str, Mean]:
    """How much more accurate each distilled student is than alone, as a share, paired by seed; by its role.

    A student that was not measured in every seed, distilled and alone, is left out.
    """
    per_seed = [run.rows for run in runs]
    gains = {
        role: accuracy_gain(per_seed, f"{role}-pytorch", f"{baseline_role(role)}-pytorch") for role in runs[0].students
    }
    return {role: gain for role, gain in gains.items() if gain is not None}
