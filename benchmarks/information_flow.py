"""Information-flow modelling in its paper's own set-up and by its own measure: CIFAR-10, retrieval.

    python benchmarks/information_flow.py                                       # the whole recipe: a GPU's work
    python benchmarks/information_flow.py --images 10000 --epochs 10 --data cifar10-jpeg

The networks are those of the recipe cifar10/information-flow: teacher, the small student alone, the auxiliary network
before and after the teacher is transferred to it, and the proposed student. The training images without augmentation
are the database, the test images the queries, and what enters the last linear layer is compared by L2 and by cosine.

One JSON a network goes to benchmarks/results/information-flow/BUDGET/; networks that are there are not measured again,
and the run in --out goes on where it stopped. The last step writes benchmarks/results/information-flow-BUDGET.md from
what is there, with the paper's figures beside. --epochs N is the length of the student's distillation, 50 in the paper;
all other trainings and the epochs at which their rate falls shrink by the same share. --set changes the recipe further,
such as the teacher, under another --budget name.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kdeploy import artifacts, events, machine, pipeline, recipe
from kdeploy.cli.console import Terminal
from kdeploy.loading import EvalBatches
from kdeploy.models.storage import load_network
from kdeploy.provenance import now, revision
from kdeploy.recipe.networks import networks
from kdeploy.recipe.schema import Recipe, TrainSpec
from kdeploy.stages.base import Run
from kdeploy.stages.epochs import Epochs
from kdeploy.training import setup
from kdeploy.training.retrieval import embed, retrieve

RESULTS = Path(__file__).parent / "results"
RECIPE = "cifar10/information-flow"
EPOCHS = 50
NAMES = {
    "teacher": "teacher",
    "alone": "student alone",
    "assistant-1-alone": "auxiliary before transfer",
    "assistant-1": "auxiliary after transfer",
    "student": "proposed student",
}
# Percent from the authors' stored results: mAP by L2 and cosine, precision@100 by L2 and cosine.
PUBLISHED = {
    "teacher": (87.18, 90.47, 92.15, 92.26),
    "alone": (35.30, 39.00, 55.87, 58.77),
    "assistant-1-alone": (41.41, 47.36, 66.03, 70.15),
    "assistant-1": (62.12, 66.78, 73.72, 75.90),
    "student": (49.20, 53.06, 61.54, 64.24),
}
COLUMNS = (
    ("mean_average_precision", "l2", "mAP, L2"),
    ("mean_average_precision", "cosine", "mAP, cosine"),
    ("precision", "l2", "P@100, L2"),
    ("precision", "cosine", "P@100, cosine"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder or zip files of CIFAR-10 as images; default: torchvision's")
    parser.add_argument("--images", type=int, help="so many training images, balanced over classes; default: all")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="set_", metavar="KEY=VALUE")
    parser.add_argument("--budget", help="name of the results; default: IMAGES-images-EPOCHS-epochs")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="the run's folder; default: runs/information-flow/BUDGET/seed-SEED")
    asked = parser.parse_args()
    budget = asked.budget or f"{asked.images or 'all'}-images-{asked.epochs}-epochs"
    cells = RESULTS / "information-flow" / budget
    loaded = recipe.load(RECIPE, overrides(asked))
    folder = asked.out or Path("runs") / "information-flow" / budget / f"seed-{asked.seed}"
    with events.listening(Terminal()):
        measure(loaded, folder, cells, asked.device)
    artifacts.write_text(RESULTS / f"information-flow-{budget}.md", table(cells))


def overrides(asked: argparse.Namespace) -> list[str]:
    """What the options change in the recipe."""
    changed = [f"seed={asked.seed}"]
    if asked.data is not None:
        changed += ["data.source=imagefolder", f"data.root={asked.data}"]
    if asked.images is not None:
        changed.append(f"data.limit={asked.images}")
    if asked.epochs != EPOCHS:
        changed += shorter(asked.epochs / EPOCHS)
    return [*changed, *asked.set_]


def shorter(share: float) -> list[str]:
    """All trainings of the recipe at this share of their length."""
    full = recipe.load(RECIPE)
    (auxiliary,) = full.distill.assistants
    assert full.teacher is not None
    specs: dict[str, TrainSpec | None] = {
        "teacher.train": full.teacher.train,
        "distill.assistants.0.alone": auxiliary.alone,
        "distill.assistants.0.distill": auxiliary.distill,
        "distill.assistants.0.distill.readout": auxiliary.distill and auxiliary.distill.readout,
        "distill": full.distill,
        "distill.readout": full.distill.readout,
    }
    changed = []
    for place, spec in specs.items():
        assert spec is not None
        changed.append(f"{place}.epochs={scaled(spec.epochs, share)}")
        if spec.milestones:
            changed.append(f"{place}.milestones={[scaled(epoch, share) for epoch in spec.milestones]}")
    return changed


def scaled(epochs: int, share: float) -> int:
    return max(1, round(epochs * share))


def measure(loaded: Recipe, folder: Path, cells: Path, device: str) -> None:
    """Train each network of the recipe and write its cell; what is there already is left."""
    roles = [network.role for network in networks(loaded)]
    if all((cells / f"{role}-{loaded.seed}.json").exists() for role in roles):
        return
    run = pipeline.open_run(loaded, folder, device=device)
    for stage in pipeline.training(loaded):
        pipeline.execute(run, [stage])
        role = stage.name.removeprefix("networks/")
        target = cells / f"{role}-{loaded.seed}.json"
        if role in roles and not target.exists():
            artifacts.write_json(target, cell(run, role))


def cell(run: Run, role: str) -> dict[str, Any]:
    """What retrieval and, as far as it was trained here, classification say of one network."""
    shop = run.workshop
    classifier, card = load_network(run.folder / "networks" / role)
    decided = setup.choose(TrainSpec(precision="float32"), shop.device)
    decided.place(classifier)
    height, width, channels = run.splits.shape
    database, queries = (
        embed(classifier, EvalBatches(shop.tensors(split)), decided, shape=(channels, height, width))
        for split in ("train", "test")
    )
    found = {
        form: {metric: vars(retrieve(queries, database, metric=metric, form=form)) for metric in ("l2", "cosine")}
        for form in ("standard", "code")
    }
    return {
        "schema_version": 1,
        "role": role,
        "model": card["model"],
        "seed": run.recipe.seed,
        "retrieval": found,
        "test_accuracy": accuracy(run, role),
        "database": len(database[0]),
        "queries": len(queries[0]),
        "epochs": run.recipe.distill.epochs,
        "measured_at": now(),
        "revision": revision(),
        "machine": machine.fingerprint(),
    }


def accuracy(run: Run, role: str) -> float | None:
    """Top-1 on test of the last epoch, behind the readout where there is one; None for a network not trained here."""
    if not (run.folder / "networks" / role / "history.json").is_file():
        return None
    pipeline.execute(run, [Epochs(role)])
    return float(artifacts.read_json(run.folder / "networks" / role / "epochs.json")["last"]["test_accuracy"])


def table(cells: Path) -> str:
    """The cells of the lowest seed as Markdown, each figure beside the paper's."""
    found = [artifacts.read_json(path) for path in sorted(cells.glob("*.json"))]
    seed = min(one["seed"] for one in found)
    by_role = {one["role"]: one for one in found if one["seed"] == seed}
    first = next(iter(by_role.values()))
    lines = [
        "# Information-flow modelling by retrieval, CIFAR-10",
        "",
        f"{first['database']:,} training images are the database and {first['queries']:,} test images the queries; "
        f"{first['epochs']} of the paper's {EPOCHS} epochs of distillation into the student; seed {seed}. In percent: "
        "the first figure is by the standard definition, the second as the authors' code computes it "
        "(`kdeploy/training/retrieval.py`), the one in brackets is published, of 50,000 images and all epochs. The "
        "paper gives no test accuracy; for the two networks that were distilled it is that of the readout.",
        "",
        f"| network | {' | '.join(title for _, _, title in COLUMNS)} | test accuracy |",
        "|:--|" + "--:|" * (len(COLUMNS) + 1),
    ]
    for role, name in NAMES.items():
        if role in by_role:
            figures = [
                " / ".join(
                    f"{100 * by_role[role]['retrieval'][form][metric][what]:.2f}" for form in ("standard", "code")
                )
                + f" ({published:.2f})"
                for (what, metric, _), published in zip(COLUMNS, PUBLISHED[role], strict=True)
            ]
            score = by_role[role]["test_accuracy"]
            shown = "-" if score is None else f"{100 * score:.2f}"
            lines.append(f"| {name}, {by_role[role]['model']} | {' | '.join(figures)} | {shown} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
