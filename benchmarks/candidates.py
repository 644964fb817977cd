"""Candidates for the recommended CIFAR-10 recipe, compared on validation alone: the test images are never read.

    python benchmarks/candidates.py --data cifar10-jpeg --teacher TEACHER

TEACHER is the folder of a fine-tuned ResNet-56, such as runs/cifar10-resnet56-resnet8-kd/seed-0/networks/teacher.
The methods that led the table of benchmarks/methods.py, alone and beside a loss on logits, at the budget of
cifar10/resnet56-resnet8-kd: all 45,000 training images, 15 epochs, a ResNet-8 from a fine-tuned ResNet-56. Runs are
kept in temporary folders. One JSON a candidate and seed goes to benchmarks/results/candidates/; those that are there
are not trained again. The last step writes benchmarks/results/candidates.md. The winner is cifar10/resnet56-resnet8.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from methods import RESULTS, load

from kdeploy import artifacts, events, machine, pipeline
from kdeploy.cli.console import Terminal
from kdeploy.provenance import now, revision
from kdeploy.recipe.schema import Recipe

KD = "{method: kd, options: {temperature: 4, alpha: 0.9}}"
DKD = "{method: dkd}"
FITNET = "{method: fitnet}"
SIMKD = "{method: simkd}"
CANDIDATES = {
    "kd": [KD],
    "fitnet": [FITNET],
    "fitnet + kd": [FITNET, KD],
    "fitnet + dkd": [FITNET, DKD],
    "simkd": [SIMKD],
    "simkd x10": ["{method: simkd, weight: 10}"],
    "simkd + kd": [SIMKD, KD],
    "simkd + fitnet": [SIMKD, "{method: fitnet, weight: 1}"],
    "simkd, batch 64": [SIMKD],
    "simkd, wide projector": ["{method: simkd, options: {reduction: 1}}"],
}
CHANGES = {"simkd, batch 64": ["distill.batch=64"]}
"""What a candidate changes beside the methods: smaller batches take twice the steps in the same epochs."""
CACHE = "{views: 5, seed: null}"
"""Five views a sample, each seen in three of the 15 epochs: a third of the teacher's work."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder or zip files of CIFAR-10 as images")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of the fine-tuned teacher")
    parser.add_argument("--candidates", default=";".join(CANDIDATES), help="names from the list, parted by semicolons")
    parser.add_argument("--seeds", default="0")
    asked = parser.parse_args()
    cells = RESULTS / "candidates"
    with events.listening(Terminal()):
        for seed in (int(word) for word in asked.seeds.split(",")):
            for name in asked.candidates.split(";"):
                run_cell(cells / f"{name.replace(' ', '').replace(',', '-')}-{seed}.json", name, seed, asked)
    artifacts.write_text(RESULTS / "candidates.md", table(cells))


def run_cell(target: Path, name: str, seed: int, asked: argparse.Namespace) -> None:
    """Train one student by one candidate."""
    if target.exists():
        return
    loaded = load(
        asked.data,
        asked.teacher,
        f"teacher.cache={CACHE}",
        f"distill.method=[{', '.join(CANDIDATES[name])}]",
        *CHANGES.get(name, ()),
        "distill.baseline=none",
        f"seed={seed}",
    )
    with tempfile.TemporaryDirectory() as folder:
        run = pipeline.open_run(loaded, Path(folder) / "run")
        pipeline.execute(run, pipeline.training(loaded))
        artifacts.write_json(target, cell(run.folder / "networks" / "student", name, loaded))


def cell(network: Path, name: str, loaded: Recipe) -> dict[str, Any]:
    """What one training gave on validation; accuracies are shares."""
    return {
        "schema_version": 1,
        "candidate": name,
        "seed": loaded.seed,
        **artifacts.read_json(network / "history.json"),
        "distill": loaded.distill.model_dump(mode="json", include={"method", "epochs", "batch", "lr"}),
        "measured_at": now(),
        "revision": revision(),
        "machine": machine.fingerprint(),
    }


def table(cells: Path) -> str:
    """The cells as Markdown, best first."""
    found = [artifacts.read_json(path) for path in sorted(cells.glob("*.json"))]
    lines = sorted(((one["last"]["validation_accuracy"], one) for one in found), key=lambda pair: -pair[0])
    rows = [
        f"| {one['candidate']} | {one['seed']} | {100 * score:.2f} | {100 * one['chosen']['validation_accuracy']:.2f} |"
        for score, one in lines
    ]
    head = (
        "# Candidates on validation: ResNet-56 to ResNet-8, CIFAR-10 as JPEG files\n\n"
        f"45,000 training images, {found[0]['epochs']} epochs; top-1 on the 5,000 images held back, of the last epoch "
        "and of the best one.\n\n| candidate | seed | last epoch (%) | best epoch (%) |\n|:--|--:|--:|--:|\n"
    )
    return head + "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
