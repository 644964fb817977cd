"""`kdeploy run`: the whole line, from a recipe to a table, a report and a bundle."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register


def run(
    recipe: options.RecipeArgument,
    set_: options.SetOption = None,
    seeds: options.SeedsOption = None,
    out: options.OutOption = None,
    device: options.DeviceOption = "auto",
    devices: options.DevicesOption = 1,
    nodes: options.NodesOption = 1,
    fresh: options.FreshOption = False,
    resume: options.ResumeOption = False,
    dry_run: options.DryRunOption = False,
    json_: options.JsonOption = None,
) -> None:
    """Distil, export, build engines, measure them, and write a report and a bundle.

    What is finished already is skipped, what was interrupted is continued; --resume insists on it.

    Example: kdeploy run quickstart --set distill.epochs=5
    """
    from kdeploy import recipe as recipes
    from kdeploy.cli.execution import require_device, require_resumable, together
    from kdeploy.cli.output import talking
    from kdeploy.errors import UserError
    from kdeploy.provenance import RECORD

    loaded = recipes.load(recipe, set_ or ())
    folder = out or Path("runs") / loaded.name
    numbers = _numbers(seeds)
    if numbers and (folder / RECORD).is_file():
        raise UserError(f"{folder} holds a single run. Choose another place for several seeds with --out DIR.")
    if resume:
        require_resumable([folder / f"seed-{seed}" for seed in numbers] or [folder], fresh=fresh)
    with talking():
        require_device(device, "kdeploy run")
        if dry_run:
            from kdeploy.cli.planning import show_plan

            show_plan(loaded, folder, numbers, device, fresh, json_)
            return
        seeded = [loaded.model_copy(update={"seed": seed}) for seed in numbers]
        runs = [(each, folder / f"seed-{each.seed}") for each in seeded] or [(loaded, folder)]

        def first(processes: options.Processes) -> None:
            asked = _Asked(device, fresh, json_, processes)
            if numbers:
                _several(runs, folder, asked)
            else:
                _one(loaded, folder, asked)

        together(device, devices, nodes, runs, first)


def register(app: typer.Typer) -> None:
    _register(app, run, "run")


def _numbers(seeds: str | None) -> list[int]:
    from kdeploy.errors import UserError

    if seeds is None:
        return []
    try:
        numbers = [int(word) for word in seeds.split(",")]
    except ValueError:
        raise UserError(f"--seeds {seeds!r} must be whole numbers with commas, for example --seeds 0,1,2.") from None
    if len(set(numbers)) != len(numbers) or min(numbers) < 0:
        raise UserError(f"--seeds {seeds!r}: each seed once, none below 0.")
    return numbers


@dataclass(frozen=True)
class _Asked:
    """What the command line says of how to run, whatever the recipes."""

    device: str
    fresh: bool
    json_: str | None
    processes: options.Processes

    def open(self, recipe: options.Recipe, folder: Path) -> options.Run:
        from kdeploy import pipeline

        return pipeline.open_run(recipe, folder, device=self.device, fresh=self.fresh, processes=self.processes)


def _one(loaded: options.Recipe, folder: Path, asked: _Asked) -> None:
    from kdeploy import pipeline, results
    from kdeploy.cli.execution import carry_out
    from kdeploy.cli.output import emit
    from kdeploy.report.terminal import ResultTable

    stages = pipeline.plan(loaded)
    carry_out(asked.open(loaded, folder), stages)
    found = results.read(folder)
    emit(asked.json_, found.to_json(), ResultTable(found.rows))
    _published_lines([folder], asked.json_)
    _int8_lines([found], asked.json_)
    _closing_lines(found, found.report, asked.json_)
    _require_gates([found])


def _several(seeded: list[tuple[options.Recipe, Path]], folder: Path, asked: _Asked) -> None:
    """A run folder for each seed, all of them opened before the first is trained, and their means."""
    from rich.console import Group

    from kdeploy import artifacts, events, pipeline, results
    from kdeploy.cli.execution import carry_out
    from kdeploy.cli.output import emit
    from kdeploy.report.html import write_report
    from kdeploy.report.seeds import aggregate
    from kdeploy.report.terminal import AggregateTable, ResultTable

    plans = [pipeline.plan(recipe) for recipe, _ in seeded]
    folders = [at for _, at in seeded]
    opened = [asked.open(recipe, at) for recipe, at in seeded]
    for run_, stages in zip(opened, plans, strict=True):
        events.say(f"seed {run_.recipe.seed}: {run_.folder}")
        carry_out(run_, stages, folders)
    runs = [results.read(at) for at in folders]
    summary = results.seeds_to_json(runs)
    artifacts.write_json(folder / "summary.json", summary)
    report = folder / "report.html"
    write_report(report, results.report_data(folders[0], runs))
    per_seed = [part for run in runs for part in (f"\nseed {run.record.seed}", ResultTable(run.rows))]
    emit(asked.json_, summary, Group(*per_seed, "\nmeans", AggregateTable(aggregate([run.rows for run in runs]))))
    _gain_lines(runs, asked.json_)
    _published_lines(folders, asked.json_)
    _int8_lines(runs, asked.json_)
    _closing_lines(runs[0], report, asked.json_)
    _require_gates(runs)


def _closing_lines(found: options.RunResults, report: Path, json_: str | None) -> None:
    """The paths of report and bundles, and the line that runs the first bundle."""
    from kdeploy.cli.output import add

    packed = [str(path) for path in found.bundles.values()]
    lines = [f"report  {report}", *(f"bundle  {path}" for path in packed)]
    if packed and found.samples:
        lines += ["", "Try it:  " + shlex.join(["kdeploy", "predict", packed[0], str(found.samples[-1])])]
    add(json_, "\n".join(lines))


def _gain_lines(runs: list[options.RunResults], json_: str | None) -> None:
    """What distillation gained; where there are several students, of which."""
    from kdeploy import results
    from kdeploy.cli.output import add

    gains = results.gains_over_alone(runs)
    for role, gain in gains.items():
        if gain.low is None or gain.high is None:
            continue
        interval = f"95 % interval {100 * gain.low:+.2f} to {100 * gain.high:+.2f}"
        gained = f"{100 * gain.value:+.2f} points, {interval}, {gain.seeds} seeds, paired by seed"
        add(json_, f"distilled over alone{f' ({role})' if len(gains) > 1 else ''}: {gained}")


def _published_lines(folders: list[Path], json_: str | None) -> None:
    """Ours beside the published figure, where the recipe has one."""
    from kdeploy.cli.output import add
    from kdeploy.published import comparison

    compared = comparison(folders)
    if compared is not None:
        add(json_, compared)


def _int8_lines(runs: list[options.RunResults], json_: str | None) -> None:
    """Where int8 is not worth it, in words."""
    from kdeploy.cli.output import add

    lines = [
        (f"seed {run_.record.seed}: " if len(runs) > 1 else "") + failure
        for run_ in runs
        for failure in run_.int8_failures
    ]
    if lines:
        add(json_, "\n".join(lines))


def _require_gates(runs: list[options.RunResults]) -> None:
    from kdeploy.errors import GateFailed

    failed = [
        (f"seed {run.record.seed}: " if len(runs) > 1 else "")
        + f"{gate.name} ({gate.row}): {gate.bound}, measured {gate.value}"
        for run in runs
        for gate in run.failed
    ]
    if failed:
        raise GateFailed("a gate did not hold: " + "; ".join(failed) + ".")
