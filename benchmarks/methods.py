"""Every distillation method on one pair at one budget: CIFAR-10, 10,000 class-balanced images, 10 epochs.

    python benchmarks/methods.py --data cifar10-jpeg --teacher runs/cifar10-resnet56-resnet8-kd/seed-0/networks/teacher

--teacher is the folder of a fine-tuned ResNet-56, as `kdeploy run cifar10/resnet56-resnet8-kd` leaves it. One JSON a
cell (method and seed) goes to benchmarks/results/methods/; cells that are there are not run again, so that an
interrupted table continues. The last step writes benchmarks/results/methods-<student>.md from the cells that are there.
Methods run with their own default options and weights, which are those behind the published tables. The teacher is
asked once for each view (teacher.cache), one view an epoch, drawn from the seed: the images and targets are those of
training with the teacher at every step. What a step costs with it is measured by benchmarks/method_steps.py.

Some rows have a set-up of their own (OWN), which the table says. Information-flow modelling, whose networks are not
those of the others, is measured by benchmarks/information_flow.py.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdeploy import artifacts, events, machine, methods, pipeline, recipe
from kdeploy.cli.console import Terminal
from kdeploy.provenance import now, revision
from kdeploy.recipe.schema import Recipe
from kdeploy.report.seeds import Mean, mean_of
from kdeploy.stages.epochs import Epochs

RESULTS = Path(__file__).parent / "results"
ALONE = "cross-entropy alone"
IMAGES, EPOCHS, BATCH = 10_000, 10, 128
CACHE = f"{{views: {EPOCHS}, seed: null}}"


@dataclass(frozen=True)
class Own:
    """A row in its own set-up: what it changes in the recipe, and what the table says of it."""

    note: str
    overrides: tuple[str, ...]
    mutual: bool = False


TURNED = "each image in four rotations, for 3 epochs: as many rows as 12 epochs of the others"
OWN = {
    "mutual": Own("two ResNet-8 teach one another, no teacher (deep mutual learning)", (), mutual=True),
    "hssakd": Own(
        f"{TURNED}; the teacher's heads trained for 1 epoch, not 100",
        ("distill.method=hssakd", "distill.options={head_epochs: 1}", "distill.epochs=3"),
    ),
    "hssakd-online": Own(
        f"two ResNet-8 teach one another, no teacher; {TURNED}",
        ("distill.method=hssakd", "distill.options={temperature: 3}", "distill.epochs=3"),
        mutual=True,
    ),
}
STANDARDIZED = {
    "kd-ls": ("kd", "distill.weight=9", "distill.cross_entropy=0.1", "{alpha: 0.9, temperature: 2, standardize: true}"),
    "dkd-ls": ("dkd", "distill.weight=9", "distill.cross_entropy=1", "{temperature: 2, standardize: true}"),
}
"""Rows that are a method on standardised logits, as the recipes of these names have it for CIFAR-100."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder or zip files of CIFAR-10 as images")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of the fine-tuned teacher")
    parser.add_argument("--student", default="resnet8")
    parser.add_argument("--methods", default=",".join([*shared(), *OWN]))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--set", action="append", default=[], dest="set_", metavar="KEY=VALUE")
    asked = parser.parse_args()
    cells = RESULTS / "methods" / asked.student
    with events.listening(Terminal()):
        for seed in (int(word) for word in asked.seeds.split(",")):
            for method in asked.methods.split(","):
                run_cell(cells, method, seed, asked)
    artifacts.write_text(RESULTS / f"methods-{asked.student}.md", table(cells, asked.student))


def shared() -> list[str]:
    """The rows that can be measured in one set-up."""
    return [*(name for name in methods.names() if name not in (*OWN, "information-flow")), *STANDARDIZED]


def run_cell(cells: Path, method: str, seed: int, asked: argparse.Namespace) -> None:
    """Train one student; the first method of a seed trains the student alone beside it."""
    target, alone = cells / f"{method}-{seed}.json", cells / f"alone-{seed}.json"
    if target.exists():
        return
    baseline = "none" if alone.exists() else "alone"
    common = [
        f"data.limit={IMAGES}",
        f"student.model={asked.student}",
        f"distill.baseline={baseline}",
        f"distill.epochs={EPOCHS}",
        f"seed={seed}",
        *asked.set_,
    ]
    own = OWN.get(method)
    if method in STANDARDIZED:
        name, *weights, options = STANDARDIZED[method]
        common += [f"distill.method={name}", *weights, f"distill.options={options}", f"teacher.cache={CACHE}"]
    elif own is None:
        common += [f"distill.method={method}", f"teacher.cache={CACHE}"]
    else:
        common += own.overrides
    loaded = load_mutual(asked, *common) if own and own.mutual else load(asked.data, asked.teacher, *common)
    with tempfile.TemporaryDirectory() as folder:
        run = pipeline.open_run(loaded, Path(folder) / "run")
        roles = ["student"] if baseline == "none" else ["alone", "student"]
        pipeline.execute(run, [*pipeline.training(loaded), *(Epochs(role) for role in roles)])
        for role in roles:
            network = run.folder / "networks" / role
            artifacts.write_json(alone if role == "alone" else target, cell(network, method, loaded, role))


def load(data: Path, teacher: Path, *overrides: str) -> Recipe:
    """The CIFAR-10 recipe with a teacher that is there already."""
    teacher = teacher.resolve()
    common = [
        "data.source=imagefolder",
        f"data.root={data}",
        f"teacher.checkpoint={teacher / f'{teacher.name}.safetensors'}",
        "teacher.sha256=null",
        "teacher.rename=[]",
        "teacher.train=null",
        "distill.options={}",
        f"distill.batch={BATCH}",
    ]
    return recipe.load("cifar10/resnet56-resnet8-kd", [*common, *overrides])


def load_mutual(asked: argparse.Namespace, *overrides: str) -> Recipe:
    """The recipe of two peers."""
    common = ["data.source=imagefolder", f"data.root={asked.data}", f"distill.batch={BATCH}"]
    peers = f"distill.peers=[{{model: {asked.student}}}]"
    return recipe.load("cifar10/resnet8-mutual", [*common, peers, *overrides])


def cell(network: Path, method: str, loaded: Recipe, role: str) -> dict[str, Any]:
    """What one training gave; accuracies are shares."""
    return {
        "schema_version": 1,
        "method": ALONE if role == "alone" else method,
        "seed": loaded.seed,
        **artifacts.read_json(network / "epochs.json"),
        "images": IMAGES,
        "epochs": loaded.distill.epochs,
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
    steps = step_ratios(student)
    samples = next(iter(found.values()))[0]["test_samples"]
    text = (
        f"# Methods: ResNet-56 to {student}, CIFAR-10 as JPEG files\n\n"
        f"{IMAGES:,} class-balanced training images, {EPOCHS} epochs, batch {BATCH}; top-1 of the last epoch on "
        f"{samples:,} test images, mean over seeds with its 95 % t interval; the same of the points above "
        "cross-entropy alone, paired by seed; time of a step with the teacher run in it, relative to plain KD's "
        "(`method_steps.py`).\n\n"
        "| method | test accuracy (%) | over alone (points) | seeds | step / KD's |\n|:--|--:|--:|--:|--:|\n"
    )
    scores = {method: mean_of([100 * one["last"]["test_accuracy"] for one in group]) for method, group in found.items()}
    ranked = sorted(scores, key=lambda method: -scores[method].value)
    for method in (method for method in ranked if method not in OWN):
        gain = "" if method == ALONE else shown(gain_of(found[method], found[ALONE]))
        text += f"| {method} | {shown(scores[method])} | {gain} | {len(found[method])} | {steps.get(method, 'n/a')} |\n"
    if any(method in OWN for method in ranked):
        text += "\nIn a set-up of their own, over the same images:\n\n"
        text += "| method | test accuracy (%) | seeds | set-up |\n|:--|--:|--:|:--|\n"
    for method in (method for method in ranked if method in OWN):
        text += f"| {method} | {shown(scores[method])} | {len(found[method])} | {OWN[method].note} |\n"
    return text


def gain_of(group: list[dict[str, Any]], alone: list[dict[str, Any]]) -> Mean:
    """Points above the student alone of the same seed."""
    others = {one["seed"]: one["last"]["test_accuracy"] for one in alone}
    return mean_of([100 * (one["last"]["test_accuracy"] - others[one["seed"]]) for one in group])


def shown(score: Mean) -> str:
    """Percent, with the interval where there are seeds enough."""
    interval = "" if score.low is None or score.high is None else f" [{score.low:.1f}, {score.high:.1f}]"
    return f"{score.value:.2f}{interval}"


def step_ratios(student: str) -> dict[str, str]:
    """The ratios that `method_steps.py` has measured, where it has."""
    path = RESULTS / "methods" / f"steps-{student}.json"
    ratios = artifacts.read_json(path)["ratios"] if path.exists() else {}
    return {method: f"{one['median']:.2f} [{one['low']:.2f}, {one['high']:.2f}]" for method, one in ratios.items()}


if __name__ == "__main__":
    main()
