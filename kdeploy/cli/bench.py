"""`kdeploy bench`: how fast, how accurate, how large."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register

if TYPE_CHECKING:
    from kdeploy.bench.comparison import Comparison
    from kdeploy.bench.job import ScenariosAsked
    from kdeploy.bench.layers import LayerProfile
    from kdeploy.bench.results import Measurement
    from kdeploy.errors import KdeployError
    from kdeploy.recipe.schema import BenchSpec

_TIME_S, _COUNT = 10.0, 662
_QUICK_S, _QUICK_COUNT = 1.0, 64


def bench(
    context: typer.Context,
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
    threads: options.SuitedThreadsOption = None,
    min_time: Annotated[
        float | None,
        typer.Option(
            "--min-time", metavar="SECONDS", min=0.01, help="For each batch size, at least.", show_default="10"
        ),
    ] = None,
    min_count: Annotated[
        int | None,
        typer.Option(
            "--min-count", metavar="N", min=1, help="Single calls, at least; p99 wants 662.", show_default="662"
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A look: 1 second and 64 calls are enough.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with status 4 where a measurement is INVALID or emulated.")
    ] = False,
    layers: Annotated[
        bool, typer.Option("--layers", help="Show by layer where the time goes, as the engines' own profilers tell it.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Keep the raw samples here, one JSON an artefact.")
    ] = None,
    compare: Annotated[
        bool | None,
        typer.Option(
            "--compare/--no-compare",
            help="Call all in turns and say which is faster than the first.",
            show_default="where several are given",
        ),
    ] = None,
    processes: Annotated[int, typer.Option("--processes", metavar="N", min=2, help="Of each, for the comparison.")] = 8,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="FILE", help="What --json or --out wrote before, on this machine."),
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option("--fail-if", metavar="CONDITION", help="'p50 > 3%', 'accuracy < -0.5', 'size > 0%'; repeatable."),
    ] = None,
    scenario: Annotated[
        list[str] | None,
        typer.Option(
            "--scenario",
            metavar="NAME",
            autocompletion=lambda incomplete: _scenario_names(incomplete),
            help="MLPerf's single-stream, multi-stream, server or offline besides; repeatable.",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate", metavar="QPS", min=0.001, help="Server: queries a second.", show_default="the highest in bound"
        ),
    ] = None,
    bound_ms: Annotated[
        float | None,
        typer.Option("--bound-ms", metavar="MS", min=0.001, help="Server: what p99 may reach.", show_default="15"),
    ] = None,
    mlperf: Annotated[
        bool, typer.Option("--mlperf", help="Scenarios with official durations and counts: 600 s each.")
    ] = False,
    loadgen: Annotated[
        Path | None,
        typer.Option("--loadgen", metavar="DIR", help="MLPerf's own LoadGen runs them too; its logs go here."),
    ] = None,
    save: Annotated[
        list[Path] | None,
        typer.Option(
            "--save",
            metavar="FILE",
            help="Write the table too; the ending is the format: .csv, .md, .dashboard.json (customSmallerIsBetter), "
            ".schema.json (of --out's files). May be repeated.",
        ),
    ] = None,
    board: options.BoardOption = None,
    target: options.TargetOption = "local",
    json_: options.JsonOption = None,
) -> None:
    """Measure engines on this machine, or on a device, each in a process of its own.

    Engines of a run are measured on its test images; what comes without data gets random inputs, and its
    accuracy is shown as not measured. Each measurement ends VALID or INVALID, with the reasons: too few calls, a
    machine that did not hold its speed, other programs, another precision than the engine is named after.

    Several are called in turns besides, so that the machine's own drift meets them alike, and each is said to be
    faster or slower than the first, or not to differ by what so many calls could show. With --against and --fail-if,
    a change for the worse ends with status 3, if its whole interval lies beyond what is allowed.

    --scenario adds MLPerf's, each with its two audits: the same outputs as in an accuracy run, and no caching.

    --for takes the threads that suit a board, and warns of what should be otherwise there before measuring. On an
    emulated processor accuracy and size are measured, and neither time nor memory.

    Example: kdeploy bench old.kdz new.kdz --batch 8
    """
    from rich.console import Group

    from kdeploy import targets
    from kdeploy.bench import regression
    from kdeploy.bench.layers import with_layers
    from kdeploy.cli.bench_there import bench_there
    from kdeploy.cli.comparing import conditions, require_clock, scenarios_asked, sentences
    from kdeploy.cli.output import add, emit, talking
    from kdeploy.cli.suiting import suited
    from kdeploy.machine import fingerprint
    from kdeploy.recipe.schema import BenchSpec, GatesSpec
    from kdeploy.report import calls, energy
    from kdeploy.report.formats.measured import check_ending, write_measured
    from kdeploy.report.layers import LayerTables
    from kdeploy.report.rows import baseline_of, rows_from
    from kdeploy.report.terminal import ResultTable
    from kdeploy.report.verdicts import int8_failures, require_valid, scenario_lines

    if (place := targets.parse(target)) is not None:
        paths = {"artifacts": artifacts, "against": against, "out": out, "loadgen": loadgen, "save": save}
        bench_there(context, place, {**paths, "board": board, "json_": json_}, _test_images)
        return
    spec = BenchSpec(
        batch=tuple(dict.fromkeys([1, *(batch or [])])),
        threads=threads or 1,
        min_time_s=min_time or (_QUICK_S if quick else _TIME_S),
        min_count=min_count or (_QUICK_COUNT if quick else _COUNT),
    )
    for file in save or []:
        check_ending(file)
    asked = conditions(against, fail_if or [])
    scenarios = scenarios_asked(scenario or [], rate, bound_ms, mlperf, loadgen, spec)
    require_clock(scenario or [], layers, [] if asked is None else asked[1])
    with talking():
        spec = suited(spec, board, threads)
        found = _everything(artifacts)
        if asked is not None:
            regression.require_comparable(asked[0], [one.name for one, _ in found], fingerprint(), spec.threads)
        measured, stopped = _measured(found, spec, out, scenarios)
        several = len(artifacts) > 1 if compare is None else compare
        profiles, comparison, failure = _besides(
            measured, [one for one, _ in found[: len(measured)]], spec, out, layers, processes if several else None
        )
        measured = [with_layers(one, profiles) for one in measured]
    checked = [] if asked is None else regression.check(measured, *asked)
    rows = rows_from(measured, baseline=baseline_of(measured))
    failures = int8_failures(measured, GatesSpec().int8_drop_points)
    payload = {
        "schema_version": 1,
        "rows": [row.model_dump() for row in rows],
        "measurements": [result.model_dump(mode="json") for result in measured],
        "int8_failures": failures,
        "comparison": None if comparison is None else comparison.model_dump(mode="json"),
        "checked": [one.model_dump() for one in checked],
        "layers": [one.model_dump(mode="json") for one in profiles],
    }
    emit(json_, payload, Group(ResultTable(rows), "", LayerTables(profiles)) if profiles else ResultTable(rows))
    notes = [*scenario_lines(measured), *sentences(comparison, measured), *map(regression.sentence, checked)]
    notes += [*failures, *calls.lines(measured), *energy.lines(measured)]
    if notes:
        add(json_, "\n".join(notes))
    for file in save or []:
        write_measured(file, measured, rows)
        add(json_, f"saved  {file}")
    if error := stopped or failure:
        raise error
    if strict:
        require_valid(measured)
    regression.require(checked)


def register(app: typer.Typer) -> None:
    _register(app, bench, "bench")


def _besides(
    measured: Sequence[Measurement],
    found: Sequence[options.Artifact],
    spec: BenchSpec,
    out: Path | None,
    layers: bool,
    processes: int | None,
) -> tuple[list[LayerProfile], Comparison | None, KdeployError | None]:
    """Layers and the comparison, as far as they come: what went wrong is raised when all the rest was shown."""
    from kdeploy.cli.comparing import compared_in_turns, profiled
    from kdeploy.errors import KdeployError

    profiles: list[LayerProfile] = []
    try:
        profiles = profiled(found, spec.threads, out) if layers else []
        if processes is None:
            return profiles, None, None
        return profiles, compared_in_turns(measured, {one.name: one.path for one in found}, spec, processes), None
    except KdeployError as error:
        return profiles, None, error


def _measured(
    found: Sequence[tuple[options.Artifact, options.ImageSet | None]],
    spec: BenchSpec,
    out: Path | None,
    scenarios: ScenariosAsked | None,
) -> tuple[list[Measurement], KdeployError | None]:
    """Each measured, up to one that can't be, and why; what is measured is kept in `out` at once.

    Raises the error where it is the first that can't be.
    """
    from kdeploy import artifacts as files
    from kdeploy.bench.measure import measure
    from kdeploy.errors import KdeployError

    measured: list[Measurement] = []
    for one, data in found:
        try:
            result = measure(one.path, name=one.name, role=one.role, spec=spec, data=data, scenarios=scenarios)
        except KdeployError as error:
            if not measured:
                raise
            return measured, error
        measured.append(result)
        if out is not None:
            files.write_json(out / f"{one.name}.json", result.model_dump(mode="json"))
    return measured, None


def _scenario_names(incomplete: str) -> list[str]:
    from kdeploy.bench import scenarios

    return [name for name in scenarios.names() if name.startswith(incomplete)]


def _everything(artifacts: list[Path]) -> list[tuple[options.Artifact, options.ImageSet | None]]:
    """What is measured, and on which images; what would have the name of another is named by its path."""
    from kdeploy.bench.artifacts import resolve

    paths = dict.fromkeys(artifacts)
    found = [(path, one, data) for path in paths for data in [_test_images(path)] for one in resolve(path)]
    count = Counter(one.name for _, one, _ in found)
    named = [
        (one if count[one.name] == 1 else replace(one, name=_by_path(path, one.name), role="file"), data)
        for path, one, data in found
    ]
    return _numbered(named)


def _by_path(given: Path, name: str) -> str:
    """`runs/a` and `student-pytorch` to `runs-a-student-pytorch`, `b/net.onnx` to `b-net.onnx`: of a row and a file."""
    parts = [part for part in given.parts if part not in ("/", "..")]
    ends_so = bool(parts) and Path(parts[-1]).stem == name
    return "-".join(parts if ends_so else [*parts, name])


def _numbered(
    found: Sequence[tuple[options.Artifact, options.ImageSet | None]],
) -> list[tuple[options.Artifact, options.ImageSet | None]]:
    """Names that are still the same (`net.onnx` and `../net.onnx`) get a number."""
    seen: Counter[str] = Counter()
    named = []
    for one, data in found:
        seen[one.name] += 1
        number = seen[one.name]
        named.append((one if number == 1 else replace(one, name=f"{one.name}-{number}"), data))
    return named


def _test_images(artifact: Path) -> options.ImageSet | None:
    """The test split of the run that an artefact is, or lies in; None outside a run, or where its data is not here."""
    from kdeploy import events, pipeline
    from kdeploy.bench import sent
    from kdeploy.errors import KdeployError
    from kdeploy.provenance import RECORD

    came_along = sent.beside(artifact, is_folder=artifact.is_dir())
    if came_along.is_file():
        return sent.read(came_along)
    whole = artifact.resolve()
    inside = [whole, *whole.parents[:4]]  # engines/ROW, or devices/NAME/engines/ROW
    run = next((folder for folder in inside if (folder / RECORD).is_file()), None)
    if run is None:
        return None
    try:
        return pipeline.reopen(run).splits.test
    except KdeployError as error:  # a device need not have what the run was made from
        events.warn(f"{artifact}: accuracy is not measured, because the data of {run} cannot be read. {error}")
        return None
