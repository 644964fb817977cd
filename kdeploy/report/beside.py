"""Runs that are not seeds of one another, beside each other on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from kdeploy.bench.regression import differing
from kdeploy.errors import UserError
from kdeploy.report.data import Gate, Made, ReportData, Stage
from kdeploy.report.headline import shipped_rows
from kdeploy.report.rows import Row, rows_from

LETTERS = ascii_uppercase
_BETWEEN = "\n---\n"
"""What parts the documents of a YAML file."""


def beside(reports: Sequence[ReportData]) -> ReportData:
    """One report of several runs; each goes by a letter, which its networks, files and stages carry.

    Ratios refer to the first run's baseline; those of latencies are left out where another machine measured. Agreement
    stays that with the run's own teacher. Raises a UserError for more runs than there are letters.
    """
    if len(reports) > len(LETTERS):
        raise UserError(f"{len(reports)} runs are more than a page can hold: report at most {len(LETTERS)}.")
    marked = [_marked(report, letter) for report, letter in zip(reports, LETTERS, strict=False)]
    first = marked[0]
    names = [f"{letter} {report.title}" for letter, report in zip(LETTERS, reports, strict=False)]
    measurements = tuple(one for report in marked for one in report.measurements)
    elsewhere = [report for report in marked if differing(first.machine, report.machine)]
    return first.model_copy(
        update={
            "title": ", ".join(names),
            "about": " ".join(report.about for report in marked),
            "recipe_yaml": _BETWEEN.join(report.recipe_yaml for report in marked),
            "also_shipped": tuple(key for report in marked for key in shipped_rows(report) if key != first.shipped),
            "baselines": {key: report.baseline for report in marked for key in shipped_rows(report)},
            "rows": tuple(_rows(marked, elsewhere)),
            "measurements": measurements,
            **{name: _joined(marked, name) for name in ("curves", "epochs", "parity", "paths")},
            **{name: tuple(one for report in marked for one in getattr(report, name)) for name in _LISTED},
            "further_machines": {
                letter: report.machine for letter, report in zip(LETTERS, marked, strict=False) if report in elsewhere
            },
        }
    )


_LISTED = ("gates", "int8_failures", "provenance", "lineage", "sensitivity", "devices", "warnings", "notes")
"""Parts of a report that are lists: those of one run after those of another."""


def _rows(marked: Sequence[ReportData], elsewhere: Sequence[ReportData]) -> list[Row]:
    agreed = {row.key: row.agreement_with_teacher for report in marked for row in report.rows}
    far = {row.key for report in elsewhere for row in report.rows}
    measurements = [one for report in marked for one in report.measurements]
    return [
        row.model_copy(
            update={
                "agreement_with_teacher": agreed[row.key],
                "latency_ratio": None if row.key in far else row.latency_ratio,
            }
        )
        for row in rows_from(measurements, baseline=marked[0].baseline)
        if row.key in agreed
    ]


def _joined(marked: Sequence[ReportData], name: str) -> dict[str, Any]:
    return {key: value for report in marked for key, value in getattr(report, name).items()}


def _marked(report: ReportData, letter: str) -> ReportData:
    """The report with its letter on everything that another run may call by the same name."""
    about = f"{letter}: {report.about or report.title} (seed {report.seed})"
    return report.model_copy(
        update={
            "about": about,
            "recipe_yaml": f"# {letter}\n{report.recipe_yaml}",
            "baseline": _key(report.baseline, letter),
            "shipped": report.shipped and _key(report.shipped, letter),
            "also_shipped": tuple(_key(key, letter) for key in report.also_shipped),
            "rows": tuple(row.model_copy(update={"key": _key(row.key, letter)}) for row in report.rows),
            "measurements": tuple(
                one.model_copy(update={"name": _key(one.name, letter), "role": f"{one.role}-{letter}"})
                for one in report.measurements
            ),
            "curves": _by_role(report.curves, letter),
            "epochs": _by_role(report.epochs, letter),
            "parity": {f"{letter} {file}": found for file, found in report.parity.items()},
            "paths": {f"{letter} {name}": path for name, path in report.paths.items()},
            "gates": tuple(_gate(gate, letter) for gate in report.gates),
            "provenance": tuple(_stage(stage, letter) for stage in report.provenance),
            "lineage": tuple(_made(made, letter) for made in report.lineage),
            "sensitivity": tuple(one.model_copy(update={"name": f"{letter} {one.name}"}) for one in report.sensitivity),
            "devices": tuple(one.model_copy(update={"name": f"{letter} {one.name}"}) for one in report.devices),
            **{
                name: tuple(f"{letter}: {said}" for said in getattr(report, name))
                for name in ("int8_failures", "warnings", "notes")
            },
        }
    )


def _key(key: str, letter: str) -> str:
    return f"{letter}/{key}"


def _by_role(found: Mapping[str, Any], letter: str) -> dict[str, Any]:
    return {f"{role}-{letter}": one for role, one in found.items()}


def _gate(gate: Gate, letter: str) -> Gate:
    return gate.model_copy(update={"name": f"{letter}: {gate.name}", "row": _key(gate.row, letter)})


def _stage(stage: Stage, letter: str) -> Stage:
    outputs = {_key(file, letter): digest for file, digest in stage.outputs.items()}
    return stage.model_copy(update={"name": f"{letter} {stage.name}", "outputs": outputs})


def _made(made: Made, letter: str) -> Made:
    return made.model_copy(
        update={
            "name": f"{letter} {made.name}",
            "file": _key(made.file, letter),
            "stage": made.stage and f"{letter} {made.stage}",
            "made_from": tuple(_key(file, letter) for file in made.made_from),
        }
    )
