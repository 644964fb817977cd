"""Every distillation method on one pair at one budget: CIFAR-10, 10,000 class-balanced images, 10 epochs.

    python benchmarks/methods.py --data cifar10-jpeg --teacher runs/cifar10-resnet56-resnet8-kd/seed-0/networks/teacher

--teacher is the folder of a fine-tuned ResNet-56, as `kdeploy run cifar10/resnet56-resnet8-kd` leaves it. One JSON a
cell (method and seed) goes to benchmarks/results/methods/; cells that are there are not run again, so that an
interrupted table continues. The last step writes benchmarks/results/methods.md from the cells that are there.
Methods run with their own default options and weights, which are those behind the published tables.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from kdeploy import artifacts, events, machine, methods, pipeline, recipe
from kdeploy.cli.console import Terminal
from kdeploy.provenance import now, revision
from kdeploy.report.seeds import mean_of
from kdeploy.stages.epochs import Epochs

RESULTS = Path(__file__).parent / "results"
ALONE = "cross-entropy alone"
IMAGES, EPOCHS, BATCH = 10_000, 10, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder or zip files of CIFAR-10 as images")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of the fine-tuned teacher")
    parser.add_argument("--student", default="resnet8")
    parser.add_argument("--methods", default=",".join(methods.names()))
    parser.add_argument("--seeds", default="0,1,2")
    asked = parser.parse_args()
    cells = RESULTS / "methods" / asked.student
    with events.listening(Terminal()):
        for seed in (int(word) for word in asked.seeds.split(",")):
            for method in asked.methods.split(","):
                run_cell(cells, method, seed, asked)
    artifacts.write_text(RESULTS / f"methods-{asked.student}.md", table(cells, asked.student))


def run_cell(cells: Path, method: str, seed: int, asked: argparse.Namespace) -> None:
    """Train one student; the first method of a seed trains the student alone beside it."""
    target, alone = cells / f"{method}-{seed}.json", cells / f"alone-{seed}.json"
    if target.exists():
        return
    baseline = "none" if alone.exists() else "alone"
    teacher = asked.teacher.resolve()
    loaded = recipe.load(
        "cifar10/resnet56-resnet8-kd",
        [
            "data.source=imagefolder",
            f"data.root={asked.data}",
            f"data.limit={IMAGES}",
            f"teacher.checkpoint={teacher / f'{teacher.name}.safetensors'}",
            "teacher.sha256=null",
            "teacher.rename=[]",
            "teacher.train=null",
            f"teacher.cache={{views: {EPOCHS}, seed: null}}",
            f"student.model={asked.student}",
            f"distill.method={method}",
            "distill.options={}",
            f"distill.baseline={baseline}",
            f"distill.epochs={EPOCHS}",
            f"distill.batch={BATCH}",
            f"seed={seed}",
        ],
    )
    with tempfile.TemporaryDirectory() as folder:
        run = pipeline.open_run(loaded, Path(folder) / "run")
        roles = ["student"] if baseline == "none" else ["alone", "student"]
        pipeline.execute(run, [*pipeline.training(loaded), *(Epochs(role) for role in roles)])
        for role in roles:
            network = run.folder / "networks" / role
            artifacts.write_json(alone if role == "alone" else target, cell(network, method, seed, role))


def cell(network: Path, method: str, seed: int, role: str) -> dict[str, Any]:
    """What one training gave: accuracies as shares, and the images a second of its median epoch."""
    lines = [json.loads(line) for line in (network / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "schema_version": 1,
        "method": ALONE if role == "alone" else method,
        "seed": seed,
        **artifacts.read_json(network / "epochs.json"),
        "images_per_s": statistics.median(line["images_per_s"] for line in lines),
        "images": IMAGES,
        "epochs": EPOCHS,
        "measured_at": now(),
        "revision": revision(),
        "machine": machine.fingerprint(),
    }


def table(cells: Path, student: str) -> str:
    """The cells as Markdown: means over seeds with 95 % t intervals, best first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(cells.glob("*.json")):
        one = artifacts.read_json(path)
        found.setdefault(one["method"], []).append(one)
    kd_speed = statistics.fmean(one["images_per_s"] for one in found["kd"]) if "kd" in found else None
    rows = []
    for method, group in found.items():
        score = mean_of([100 * one["last"]["test_accuracy"] for one in group])
        interval = "" if score.low is None or score.high is None else f" [{score.low:.1f}, {score.high:.1f}]"
        speed = statistics.fmean(one["images_per_s"] for one in group)
        step = f"{kd_speed / speed:.2f}" if kd_speed else "n/a"
        rows.append((score.value, f"| {method} | {score.value:.2f}{interval} | {len(group)} | {step} |"))
    samples = next(iter(found.values()))[0]["test_samples"]
    head = (
        f"# Methods: ResNet-56 to {student}, CIFAR-10 as JPEG files\n\n"
        f"{IMAGES:,} class-balanced training images, {EPOCHS} epochs, batch {BATCH}; top-1 of the last epoch on "
        f"{samples:,} test images, mean over seeds with its 95 % t interval; time of a step relative to plain KD.\n\n"
        "| method | test accuracy (%) | seeds | step time / KD's |\n|:--|--:|--:|--:|\n"
    )
    return head + "\n".join(line for _, line in sorted(rows, reverse=True)) + "\n"


if __name__ == "__main__":
    main()
