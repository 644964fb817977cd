"""The procedures beyond one teacher and labelled data, a row each, with three seeds.

    python benchmarks/procedures.py --data cifar10-jpeg --teacher TEACHER

TEACHER is the folder of a fine-tuned ResNet-56, such as runs/cifar10-resnet56-resnet8-kd/seed-0/networks/teacher. One
JSON a cell (row, variant and seed) goes to benchmarks/results/procedures/; cells that are there are not run again, so
that an interrupted table continues. The last step writes benchmarks/results/procedures.md from those that are there.

CIFAR-10 rows train on the 10,000 class-balanced images and for the 10 epochs of benchmarks/methods.py. Accuracy is of
the last epoch, on all test images.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods import BATCH, EPOCHS, IMAGES, RESULTS, load, shown

from kdeploy import artifacts, events, machine, pipeline, recipe
from kdeploy.cli.console import Terminal
from kdeploy.provenance import now, revision
from kdeploy.recipe.networks import networks
from kdeploy.recipe.schema import Recipe
from kdeploy.report.seeds import mean_of
from kdeploy.stages.epochs import Epochs

KD = "{method: kd, options: {temperature: 4, alpha: 0.9}}"
BUDGET = (f"data.limit={IMAGES}", f"distill.epochs={EPOCHS}", f"distill.batch={BATCH}")
HALF = "student={model: resnet8, width: 0.5}"


@dataclass(frozen=True)
class Cell:
    """One training of a row. recipe: a shipped one; empty: the common one of `methods.load`, with its teacher."""

    variant: str
    overrides: tuple[str, ...]
    recipe: str = ""


ROWS = {
    "assistants": (
        Cell("direct", (HALF, f"distill.method=[{KD}]")),
        Cell(
            "through ResNet-20",
            (HALF, "distill.procedure=assistants", "distill.assistants=[{model: resnet20}]", f"distill.method=[{KD}]"),
        ),
        Cell(
            "through ResNet-20 and ResNet-8",
            (
                HALF,
                "distill.procedure=assistants",
                "distill.assistants=[{model: resnet20}, {model: resnet8}]",
                f"distill.method=[{KD}]",
            ),
        ),
    ),
    "mutual": (Cell("two ResNet-8", (), "cifar10/resnet8-mutual"),),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder or zip files of CIFAR-10 as images")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of the fine-tuned teacher")
    parser.add_argument("--rows", default=",".join(ROWS), help="names of rows, parted by commas")
    parser.add_argument("--seeds", default="0,1,2")
    asked = parser.parse_args()
    cells = RESULTS / "procedures"
    with events.listening(Terminal()):
        for seed in (int(word) for word in asked.seeds.split(",")):
            for row in asked.rows.split(","):
                for cell in ROWS[row]:
                    run_cell(cells / f"{row}-{slug(cell.variant)}-{seed}.json", row, cell, seed, asked)
    artifacts.write_text(RESULTS / "procedures.md", table(cells))


def slug(text: str) -> str:
    """A file name of a variant's name."""
    return "-".join(text.lower().replace(",", "").split())


def run_cell(target: Path, row: str, cell: Cell, seed: int, asked: argparse.Namespace) -> None:
    """Train all networks of one variant and keep what each reached."""
    if target.exists():
        return
    loaded = recipe_of(cell, seed, asked)
    with tempfile.TemporaryDirectory() as folder:
        run = pipeline.open_run(loaded, Path(folder) / "run")
        trained = [network.role for network in networks(loaded) if network.train is not None]
        pipeline.execute(run, [*pipeline.training(loaded), *(Epochs(role) for role in trained)])
        reached = {role: artifacts.read_json(run.folder / "networks" / role / "epochs.json") for role in trained}
    content = {"row": row, "variant": cell.variant, "seed": seed, "networks": reached}
    about = {"measured_at": now(), "revision": revision(), "machine": machine.fingerprint()}
    artifacts.write_json(target, {"schema_version": 1, **content, **about})


def recipe_of(cell: Cell, seed: int, asked: argparse.Namespace) -> Recipe:
    """The recipe of a cell, with its data, budget and seed."""
    overrides = [*BUDGET, f"seed={seed}", *cell.overrides]
    if cell.recipe:
        return recipe.load(cell.recipe, ["data.source=imagefolder", f"data.root={asked.data}", *overrides])
    return load(asked.data, asked.teacher, *overrides)


def table(cells: Path) -> str:
    """The cells as Markdown: for each row and variant, what each network reached, means with 95 % t intervals."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for path in sorted(cells.glob("*.json")):
        one = artifacts.read_json(path)
        found.setdefault((one["row"], one["variant"]), []).append(one)
    parts = [
        "# Procedures\n\nTop-1 of the last epoch on all test images, in percent: mean over seeds, with its 95 % t "
        "interval.\n"
    ]
    for row in ROWS:
        groups = {variant: group for (of, variant), group in found.items() if of == row}
        if groups:
            parts.append(f"## {row}\n\n| variant | network | test accuracy (%) | seeds |\n|:--|:--|--:|--:|")
            parts += [line for variant, group in groups.items() for line in lines(variant, group)]
            parts.append("")
    return "\n".join(parts)


def lines(variant: str, group: list[dict[str, Any]]) -> list[str]:
    """A line for each network of a variant."""
    roles = group[0]["networks"]
    scores = {role: mean_of([100 * one["networks"][role]["last"]["test_accuracy"] for one in group]) for role in roles}
    return [f"| {variant} | {role} | {shown(score)} | {len(group)} |" for role, score in scores.items()]


if __name__ == "__main__":
    main()
