"""`kdeploy run`: the whole line, from a recipe to a table, a report and a bundle."""

from __future__ import annotations

import shlex
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
    fresh: options.FreshOption = False,
    dry_run: options.DryRunOption = False,
    json_: options.JsonOption = None,
) -> None:
    """Distil, export, build engines, measure them, and write a report and a bundle.

    What is finished already is skipped, what was interrupted is continued.

    Example: kdeploy run quickstart --set distill.epochs=5
    """
    from kdeploy import recipe as recipes
    from kdeploy.cli.output import talking

    loaded = recipes.load(recipe, set_ or ())
    folder = out or Path("runs") / loaded.name
    with talking():
        if dry_run:
            from kdeploy.cli.planning import show_plan

            show_plan(loaded, folder, _numbers(seeds), device, json_)
        elif seeds is None:
            _one(loaded, folder, device, fresh, json_)
        else:
            _several(loaded, folder, _numbers(seeds), device, fresh, json_)


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


def _one(loaded: options.Recipe, folder: Path, device: str, fresh: bool, json_: str | None) -> None:
    from kdeploy import results
    from kdeploy.cli.output import emit
    from kdeploy.report.terminal import ResultTable

    _execute(loaded, folder, device, fresh, [])
    found = results.read(folder)
    emit(json_, found.to_json(), ResultTable(found.rows))
    _closing_lines(found, quiet=json_ == "-")
    _require_gates([found])


def _several(
    loaded: options.Recipe, folder: Path, seeds: list[int], device: str, fresh: bool, json_: str | None
) -> None:
    from kdeploy import artifacts, events, results
    from kdeploy.cli.output import emit
    from kdeploy.report.seeds import aggregate
    from kdeploy.report.terminal import AggregateTable

    folders = [folder / f"seed-{seed}" for seed in seeds]
    for seed, at in zip(seeds, folders, strict=True):
        events.say(f"seed {seed}: {at}")
        _execute(loaded.model_copy(update={"seed": seed}), at, device, fresh, folders)
    runs = [results.read(at) for at in folders]
    summary = results.seeds_to_json(runs)
    artifacts.write_json(folder / "summary.json", summary)
    emit(json_, summary, AggregateTable(aggregate([run.rows for run in runs])))
    if json_ != "-":
        _gain_line(runs)
    _closing_lines(runs[0], quiet=json_ == "-")
    _require_gates(runs)


def _execute(loaded: options.Recipe, folder: Path, device: str, fresh: bool, siblings: list[Path]) -> None:
    from kdeploy import events, pipeline
    from kdeploy.runlog import RunLog

    opened = pipeline.open_run(loaded, folder, device=device, fresh=fresh)
    with events.listening(RunLog(folder)):
        pipeline.execute(opened, pipeline.plan(loaded), siblings)


def _closing_lines(found: options.RunResults, *, quiet: bool) -> None:
    """The paths of report and bundle, and the line that runs the bundle."""
    from kdeploy.cli.console import stderr, stdout

    console = stderr if quiet else stdout
    lines = [f"report  {found.report}"]
    if found.bundle.exists():
        lines.append(f"bundle  {found.bundle}")
    if found.bundle.exists() and found.samples:
        lines += ["", "Try it:  " + shlex.join(["kdeploy", "predict", str(found.bundle), str(found.samples[-1])])]
    console.print("\n" + "\n".join(lines), markup=False, soft_wrap=True)


def _gain_line(runs: list[options.RunResults]) -> None:
    from kdeploy import results
    from kdeploy.cli.console import stdout

    gain = results.gain_over_alone(runs)
    if gain is None or gain.low is None or gain.high is None:
        return
    interval = f"95 % interval {100 * gain.low:+.2f} to {100 * gain.high:+.2f}"
    stdout.print(
        f"\ndistilled over alone: {100 * gain.value:+.2f} points, {interval}, {gain.seeds} seeds, paired by seed",
        markup=False,
    )


def _require_gates(runs: list[options.RunResults]) -> None:
    from kdeploy.errors import GateFailed

    failed = [f"{gate.name} ({gate.row}): {gate.bound}, measured {gate.value}" for run in runs for gate in run.failed]
    if failed:
        raise GateFailed("a gate did not hold: " + "; ".join(failed) + ".")
