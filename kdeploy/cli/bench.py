"""`kdeploy bench`: how fast, how accurate, how large."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register


def bench(
    artifacts: Annotated[
        list[Path],
        typer.Argument(metavar="ARTIFACT", help="A run, an engine folder, a bundle (.kdz), or an ONNX file."),
    ],
    batch: Annotated[
        list[int] | None,
        typer.Option(
            "--batch", metavar="N", min=1, help="A batch size beside 1; may be repeated.", show_default="1 alone"
        ),
    ] = None,
    threads: options.ThreadsOption = 1,
    min_time: Annotated[
        float, typer.Option("--min-time", metavar="SECONDS", min=0.01, help="For each batch size, at least.")
    ] = 10.0,
    min_count: Annotated[
        int, typer.Option("--min-count", metavar="N", min=1, help="Single calls, at least; p99 wants 662.")
    ] = 662,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Keep the raw samples here, one JSON an artefact.")
    ] = None,
    json_: options.JsonOption = None,
) -> None:
    """Measure engines on this machine, each in a process of its own.

    Engines of a run are measured on its test images; what comes without data gets random inputs, and its
    accuracy is shown as not measured.

    Example: kdeploy bench runs/quickstart --batch 8
    """
    from kdeploy import artifacts as files
    from kdeploy.bench.measure import measure
    from kdeploy.cli.output import add, emit, talking
    from kdeploy.recipe.schema import BenchSpec, GatesSpec
    from kdeploy.report.rows import rows_from
    from kdeploy.report.terminal import ResultTable
    from kdeploy.report.verdicts import int8_failures

    batches = tuple(dict.fromkeys([1, *(batch or [])]))
    spec = BenchSpec(batch=batches, threads=threads, min_time_s=min_time, min_count=min_count)
    with talking():
        measured = []
        for found, data in _everything(artifacts):
            result = measure(found.path, name=found.name, role=found.role, spec=spec, data=data)
            measured.append(result)
            if out is not None:
                files.write_json(out / f"{found.name}.json", result.model_dump(mode="json"))
    rows = rows_from(measured, baseline=measured[0].name)
    failures = int8_failures(measured, GatesSpec().int8_drop_points)
    payload = {
        "schema_version": 1,
        "rows": [row.model_dump() for row in rows],
        "measurements": [result.model_dump(mode="json") for result in measured],
        "int8_failures": failures,
    }
    emit(json_, payload, ResultTable(rows))
    if failures:
        add(json_, "\n".join(failures))


def register(app: typer.Typer) -> None:
    _register(app, bench, "bench")


def _everything(artifacts: list[Path]) -> list[tuple[options.Artifact, options.ImageSet | None]]:
    """What is measured, and on which images; what would have the name of another is named by its path."""
    from kdeploy.bench.artifacts import resolve

    paths = dict.fromkeys(artifacts)
    found = [(path, one, data) for path in paths for data in [_test_images(path)] for one in resolve(path)]
    count = Counter(one.name for _, one, _ in found)
    return [
        (one if count[one.name] == 1 else replace(one, name=_by_path(path, one.name), role="file"), data)
        for path, one, data in found
    ]


def _by_path(given: Path, name: str) -> str:
    """`runs/a` and `student-pytorch` to `runs-a-student-pytorch`: a row's name, and a file's."""
    parts = [part for part in given.with_suffix("").parts if part not in ("/", "..")]
    return "-".join(parts if parts and parts[-1] == name else [*parts, name])


def _test_images(artifact: Path) -> options.ImageSet | None:
    """The test split of the run that an artefact is, or lies in; None outside a run, or where its data is not here."""
    from kdeploy import events, pipeline
    from kdeploy.errors import KdeployError
    from kdeploy.provenance import RECORD

    inside = [artifact, artifact.parent, artifact.parent.parent]
    run = next((folder for folder in inside if (folder / RECORD).is_file()), None)
    if run is None:
        return None
    try:
        return pipeline.reopen(run).splits.test
    except KdeployError as error:  # a device need not have what the run was made from
        events.warn(f"{artifact}: accuracy is not measured, because the data of {run} cannot be read. {error}")
        return None
