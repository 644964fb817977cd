"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer


def complete_recipe(incomplete: str) -> list[str]:
    """The shipped recipes, for the shell; it goes on to files by itself where none begins like this."""
    from kdeploy.recipe.catalogue import names

    return [name for name in names() if name.startswith(incomplete)]


def _complete_device(incomplete: str) -> list[str]:
    return [device for device in ("auto", "cpu", "cuda", "mps") if device.startswith(incomplete)]


def _complete_board(incomplete: str) -> list[str]:
    from kdeploy.machine.boards import names

    return [name for name in names() if name.startswith(incomplete)]


BoardOption = Annotated[
    str | None,
    typer.Option(
        "--for",
        metavar="BOARD",
        help="A board's profile, by its name (rpi5, jetson-orin-nano, x86-vnni, …) or its file.",
        autocompletion=_complete_board,
    ),
]
RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe file, or the name of a shipped one (`kdeploy recipes`).",
        autocompletion=complete_recipe,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="Override a field of the recipe; may be repeated."),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Where the run goes.", show_default="runs/<name>")
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="Where to train: auto, cpu, cuda, cuda:N or mps.",
        autocompletion=_complete_device,
    ),
]
DevicesOption = Annotated[
    int,
    typer.Option("--devices", metavar="N", min=1, help="Train with so many processes a machine, on a GPU each if any."),
]
NodesOption = Annotated[
    int, typer.Option("--nodes", metavar="N", min=1, help="Train on so many machines, started by torchrun or SLURM.")
]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Remove the old run of this folder and start again.")]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on with the run of this folder, and fail where there is none.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan with an estimate of time, disk and downloads; do nothing.")
]
SeedsOption = Annotated[
    str | None,
    typer.Option("--seeds", metavar="0,1,2", help="Run these seeds, and show their means with intervals."),
]
JsonOption = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write the result as JSON; - for standard output, then only JSON."),
]


def _complete_target(incomplete: str) -> list[str]:
    """This machine, the kinds, and the hosts that the person's own ssh configuration names."""
    hosts = []
    try:
        for line in (Path.home() / ".ssh" / "config").read_text(encoding="utf-8", errors="replace").splitlines():
            keyword, *names = line.split() or [""]
            if keyword.lower() == "host":
                hosts += [f"ssh://{name}" for name in names if not set(name) & set("*?!")]
    except (OSError, ValueError):
        pass
    return [text for text in ("local", *(hosts or ["ssh://"]), "container:") if text.startswith(incomplete)]


TargetOption = Annotated[
    str,
    typer.Option(
        "--target",
        metavar="TARGET",
        help="Where: local, ssh://USER@HOST[:PORT], or container:IMAGE, with @linux/arm64 for that platform.",
        autocompletion=_complete_target,
    ),
]
ThreadsOption = Annotated[int, typer.Option("--threads", metavar="N", min=1, help="Threads that an inference may use.")]
SuitedThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        min=1,
        help="Threads that an inference may use.",
        show_default="1, or what suits the board of --for",
    ),
]


if TYPE_CHECKING:  # for annotations alone: the rooms are imported inside the verbs
    from kdeploy.bench.artifacts import Artifact as Artifact
    from kdeploy.recipe.schema import Recipe as Recipe
    from kdeploy.results import RunResults as RunResults
    from kdeploy.sources.base import ImageSet as ImageSet
    from kdeploy.stages.base import Run as Run
    from kdeploy.targets import Target as Target
    from kdeploy.training.processes import Processes as Processes
