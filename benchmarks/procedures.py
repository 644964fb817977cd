"""The procedures beyond one teacher and labelled data, a row each, with three seeds.

    python benchmarks/procedures.py --data DIR --teacher DIR --resnet8 DIR --checkpoint resnet20.th --letters DIR

--data: CIFAR-10 as JPEG files. --teacher: of a fine-tuned ResNet-56, such as networks/teacher in the folder
runs/cifar10-resnet56-resnet8-kd/seed-0; --resnet8: of a trained ResNet-8, such as networks/student there. --checkpoint:
the one that cifar10/resnet20-noise describes. --letters: EMNIST letters as IDX files.

One JSON a cell (row, variant and seed) goes to benchmarks/results/procedures/; cells that are there are not run again,
so that an interrupted table continues, and a cell that was interrupted goes on in its folder. The last step writes
benchmarks/results/procedures.md from the cells that are there. Where images were synthesised, 64 of them are a PNG
beside the cell.

Rows on CIFAR-10's training images take the 10,000 class-balanced ones and the 10 epochs of benchmarks/methods.py, and
noise a quarter of its recipe's images; perturbed-ensemble has three ResNet-8 as teachers, trained for 20 epochs;
data-free as much of each method as 20 minutes hold on one core of a Zen 4 whose other core is busy. Unlabelled runs as
its recipe stands. Accuracy is of the last epoch, on all test images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from methods import BATCH, EPOCHS, IMAGES, RESULTS, load
from PIL import Image

from kdeploy import artifacts, events, machine, pipeline, recipe
from kdeploy.cli.console import Terminal
from kdeploy.provenance import now, revision
from kdeploy.recipe.networks import STUDENT, baseline_role, networks
from kdeploy.recipe.schema import Recipe
from kdeploy.report.seeds import mean_of
from kdeploy.sources import synthesised
from kdeploy.stages.epochs import Epochs
from kdeploy.training.without_images import NOTES

KD = "{method: kd, options: {temperature: 4, alpha: 0.9}}"
BUDGET = (f"data.limit={IMAGES}", f"distill.epochs={EPOCHS}", f"distill.batch={BATCH}")
HALF = "student={model: resnet8, width: 0.5}"
ONLINE, ENSEMBLE = "cifar10/resnet8-online-ensemble", "cifar10/resnet20-resnet8-perturbed-ensemble"
NOISE, DATA_FREE, LETTERS = "cifar10/resnet20-noise", "cifar10/resnet20-data-free", "emnist/letters-unlabelled"
OPTIONS = "distill.procedure_options"
LIKELIHOOD = ("negative_log_likelihood", "calibration_error")
TRAIN = f"{{epochs: 20, batch: {BATCH}, lr: 0.2, schedule: cosine}}"
ALIKE = (
    *BUDGET,
    "teacher.model=resnet8",
    f"teachers=[{{model: resnet8, seed: 1, train: {TRAIN}}}, {{model: resnet8, seed: 2, train: {TRAIN}}}]",
    f"teacher.train={TRAIN}",
)
"""Teachers of the student's own form, as the paper has them."""
RUNNING = f"{OPTIONS}.teacher_statistics=running"
FEWER = ("distill.epochs=10", "distill.batch=128")  # a quarter of the recipe's noise images


@dataclass(frozen=True)
class Cell:
    """One training of a row.

    recipe: a shipped one; empty: the common one of `methods.load`, with its teacher. of_resnet8: whether the teacher is
    the one of --resnet8 instead of the recipe's.
    """

    variant: str
    overrides: tuple[str, ...] = ()
    recipe: str = ""
    of_resnet8: bool = False


def through(*models: str) -> tuple[str, ...]:
    """A half-width ResNet-8 from the teacher, through these assistants."""
    listed = ", ".join(f"{{model: {model}}}" for model in models)
    chain = ("distill.procedure=assistants", f"distill.assistants=[{listed}]") if models else ()
    return (*BUDGET, HALF, f"distill.method=[{KD}]", *chain)


ROWS = {
    "assistants": (
        Cell("direct", through()),
        Cell("through ResNet-20", through("resnet20")),
        Cell("through ResNet-20 and ResNet-8", through("resnet20", "resnet8")),
    ),
    "mutual": (Cell("two ResNet-8", BUDGET, "cifar10/resnet8-mutual"),),
    "online-ensemble": (Cell("four widths", BUDGET, ONLINE),),
    "noise": (
        Cell("teacher by batch statistics", FEWER, NOISE),
        Cell("teacher by running statistics", (*FEWER, RUNNING), NOISE),
        Cell("ResNet-8 as teacher by batch statistics", FEWER, NOISE, of_resnet8=True),
        Cell("ResNet-8 as teacher by running statistics", (*FEWER, RUNNING), NOISE, of_resnet8=True),
    ),
    "data-free": (
        Cell("noise", ("distill.batch=128", "distill.epochs=25"), NOISE),
        Cell("fast", ("distill.epochs=12",), DATA_FREE),
        Cell(
            "DAFL", (f"{OPTIONS}={{synthesis: dafl}}", "distill.options.temperature=1", "distill.epochs=10"), DATA_FREE
        ),
        Cell(
            "DeepInversion",
            (f"{OPTIONS}={{synthesis: deepinversion, images: 1024, deepinversion: {{iterations: 250}}}}",),
            DATA_FREE,
        ),
    ),
    "unlabelled": tuple(Cell(name, (f"{OPTIONS}.variant={name}",), LETTERS) for name in ("plain", "weighted", "mixed")),
    "perturbed-ensemble": (
        Cell("ConfODS", ALIKE, ENSEMBLE),
        Cell("plain, averaged teachers", (*ALIKE, "distill.procedure=offline", f"{OPTIONS}={{}}"), ENSEMBLE),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder or zip files of CIFAR-10 as images")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of the fine-tuned teacher")
    parser.add_argument("--checkpoint", type=Path, help="somebody else's ResNet-20; for noise and data-free")
    parser.add_argument("--resnet8", type=Path, help="folder of a trained ResNet-8; for noise")
    parser.add_argument("--letters", type=Path, help="folder of the EMNIST letters; for unlabelled")
    parser.add_argument("--rows", default=",".join(ROWS), help="names of rows, parted by commas")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--runs", type=Path, default=Path("runs/procedures"), help="where the networks go")
    asked = parser.parse_args()
    cells = RESULTS / "procedures"
    with events.listening(Terminal()):
        for seed in (int(word) for word in asked.seeds.split(",")):
            for row in asked.rows.split(","):
                for cell in ROWS[row]:
                    target = cells / f"{row}-{slug(cell.variant)}-{seed}.json"
                    if not target.exists():
                        run_cell(target, row, cell, seed, asked, asked.runs / row)
    artifacts.write_text(RESULTS / "procedures.md", table(cells))


def slug(text: str) -> str:
    """A file name of a variant's name."""
    return "-".join(text.lower().replace(",", "").split())


def run_cell(target: Path, row: str, cell: Cell, seed: int, asked: argparse.Namespace, runs: Path) -> None:
    """Train all networks of one variant and keep what each reached. runs: of this row, which share their teachers."""
    loaded = recipe_of(cell, seed, asked)
    run = pipeline.open_run(loaded, runs / target.stem)
    trained = [*(network.role for network in networks(loaded) if network.train is not None), *loaded.peers]
    siblings = [folder for folder in sorted(runs.iterdir()) if folder != run.folder]
    pipeline.execute(run, [*pipeline.training(loaded), *(Epochs(role) for role in trained)], siblings)
    reached = {role: artifacts.read_json(run.folder / "networks" / role / "epochs.json") for role in trained}
    stage = run.record.stages["networks/student"]
    notes = run.folder / "networks" / "student" / NOTES
    figures = artifacts.read_json(notes)["figures"] if notes.is_file() else None
    content = {"row": row, "variant": cell.variant, "seed": seed, "networks": reached, "figures": figures}
    content["student_seconds"] = stage.seconds
    if row == "data-free":
        picture(run.folder, target.with_suffix(".png"))
    about = {"measured_at": now(), "revision": revision(), "machine": machine.fingerprint()}
    artifacts.write_json(target, {"schema_version": 1, **content, **about})


def picture(folder: Path, target: Path) -> None:
    """The first 64 of the images that a run synthesised, twice their size, as one PNG."""
    images = synthesised.read(folder).images.images[:64]
    height, width = images.shape[1:3]
    grid = images.reshape(8, 8, height, width, -1).transpose(0, 2, 1, 3, 4).reshape(8 * height, 8 * width, -1)
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grid.squeeze()).resize((16 * width, 16 * height), Image.Resampling.NEAREST).save(target)


def recipe_of(cell: Cell, seed: int, asked: argparse.Namespace) -> Recipe:
    """The recipe of a cell, with its data and seed."""
    overrides = [f"seed={seed}", *cell.overrides]
    if cell.recipe == LETTERS:
        return recipe.load(cell.recipe, [f"data.root={asked.letters}", *overrides])
    if not cell.recipe:
        return load(asked.data, asked.teacher, *overrides)
    images = ["data.source=imagefolder", f"data.root={asked.data}"]
    teacher = [f"teacher.checkpoint={asked.checkpoint}"] if cell.recipe in (NOISE, DATA_FREE) else []
    return recipe.load(cell.recipe, [*images, *(resnet8(asked.resnet8) if cell.of_resnet8 else teacher), *overrides])


def resnet8(folder: Path) -> list[str]:
    """The overrides for a teacher that kdeploy saved in `folder`."""
    card = artifacts.read_json(folder / f"{folder.name}.json")
    normalize = f"{{mean: {card['mean']}, std: {card['std']}}}"
    return [
        f"teacher={{model: {card['model']}, checkpoint: {folder.resolve() / card['weights']}, normalize: {normalize}}}"
    ]


def table(cells: Path) -> str:
    """The cells as Markdown: for each row and variant, what each network reached."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for path in sorted(cells.glob("*.json")):
        one = artifacts.read_json(path)
        found.setdefault((one["row"], one["variant"]), []).append(one)
    parts = [
        "# Procedures\n\nOn all test images, of the last epoch: top-1 accuracy, its points above the same network "
        "alone and above that of the row's first variant, the negative log-likelihood of the labels (nats) and the "
        "expected calibration error. Means over seeds with 95 % t intervals, differences paired by seed; a teacher of "
        "several seeds counts once. Minutes: of the student's stage on one core, the other one busy.\n"
    ]
    for row, cells_of in ROWS.items():
        groups = {cell.variant: found[row, cell.variant] for cell in cells_of if (row, cell.variant) in found}
        if groups:
            parts.append(
                f"## {row}\n\n| variant | network | accuracy (%) | over alone | over the first "
                "| NLL | ECE (%) | minutes | seeds |"
            )
            parts.append("|:--|:--|--:|--:|--:|--:|--:|--:|--:|")
            every = [
                (variant, *line)
                for variant, group in groups.items()
                for line in lines(group, next(iter(groups.values())))
            ]
            # the teacher and the student alone are the same in several variants, and have a line with the first
            first = [line for at, line in enumerate(every) if all(line[1:] != other[1:] for other in every[:at])]
            parts += [f"| {' | '.join(line)} |" for line in first]
            parts.append("")
    return "\n".join(parts)


def reached_by(group: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """What each network of a variant reached, by seed; a student without images, in each way to evaluate it."""
    figures = group[0]["figures"]
    forms = [name for name, one in (figures or {}).items() if isinstance(one, dict) and "accuracy" in one]
    return {role: [one["networks"][role]["last"] for one in group] for role in group[0]["networks"] if not forms} | {
        f"student, {form}".replace("_", " "): [one["figures"][form] for one in group] for form in forms
    }


def lines(group: list[dict[str, Any]], first: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A line for each network of a variant. first: the row's first variant, which the student is compared with."""
    rows, others = reached_by(group), reached_by(first)
    paired = [one["seed"] for one in group] == [one["seed"] for one in first] and group is not first
    minutes = f"{sum(one['student_seconds'] for one in group) / len(group) / 60:.0f}"
    found = []
    for role, several in rows.items():
        reached = several if any(one != several[0] for one in several) else several[:1]  # one network of all seeds
        accuracy = figures_of(reached, "accuracy")
        of_student = role.startswith((STUDENT, "peer"))
        alone = rows.get(baseline_role(role) if role.startswith(STUDENT) else "alone") if of_student else None
        gain = None if alone is None else np.subtract(accuracy, figures_of(alone, "accuracy"))
        other = others.get(role) if of_student and paired else None
        lead = None if other is None else np.subtract(accuracy, figures_of(other, "accuracy"))
        likelihood, calibration = (figures_of(reached, name) for name in LIKELIHOOD)
        found.append(
            (
                role,
                mean(accuracy, factor=100),
                mean(gain, factor=100, absent="", sign="+"),
                mean(lead, factor=100, absent="", sign="+"),
                mean(likelihood, decimals=2),
                mean(calibration, factor=100),
                minutes if of_student else "",
                str(len(reached)),
            )
        )
    return found


def figures_of(reached: list[dict[str, Any]], what: str) -> list[float] | None:
    """A figure on test of each seed, None where they have none."""
    values = [one.get(f"test_{what}", one.get(what)) for one in reached]
    return None if None in values else values


def mean(
    values: Sequence[float] | None, *, factor: float = 1, decimals: int = 1, absent: str = "n/a", sign: str = "-"
) -> str:
    """The mean with its interval, where there are seeds enough; `decimals` are the interval's."""
    if values is None:
        return absent
    found = mean_of([factor * value for value in values])
    interval = "" if found.low is None else f" [{found.low:{sign}.{decimals}f}, {found.high:{sign}.{decimals}f}]"
    return f"{found.value:{sign}.2f}{interval}"


if __name__ == "__main__":
    main()
