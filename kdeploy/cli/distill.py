"""`kdeploy distill`: train the networks of a recipe, and stop there."""

from __future__ import annotations

from pathlib import Path

import typer

from kdeploy.cli import options
from kdeploy.cli.verbs import register as _register


def distill(
    recipe: options.RecipeArgument,
    set_: options.SetOption = None,
    out: options.OutOption = None,
    device: options.DeviceOption = "auto",
    devices: options.DevicesOption = 1,
    nodes: options.NodesOption = 1,
    fresh: options.FreshOption = False,
    resume: options.ResumeOption = False,
    json_: options.JsonOption = None,
) -> None:
    """Train the teacher and the student of a recipe; `kdeploy run` goes on from here.

    The student is left alone in networks/student/student.safetensors, further ones in networks/student-2 and so on.

    Example: kdeploy distill quickstart --out runs/try
    """
    from kdeploy import pipeline
    from kdeploy import recipe as recipes
    from kdeploy.cli.execution import carry_out, require_device, require_resumable, together
    from kdeploy.cli.output import emit, talking
    from kdeploy.cli.tables import networks_table

    def train(processes: options.Processes) -> None:
        stages = pipeline.training(loaded)
        carry_out(pipeline.open_run(loaded, folder, device=device, fresh=fresh, processes=processes), stages)
        payload, table = networks_table(folder)
        emit(json_, payload, table)

    loaded = recipes.load(recipe, set_ or ())
    folder = out or Path("runs") / loaded.name
    if resume:
        require_resumable([folder], fresh=fresh)
    with talking():
        require_device(device, "kdeploy distill")
        together(device, devices, nodes, [(loaded, folder)], train)


def register(app: typer.Typer) -> None:
    _register(app, distill, "distill")
