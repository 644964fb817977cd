"""Images a second and time to accuracy: our KD step, with and without the teacher cache, against other people's loops.

    python benchmarks/training_throughput.py speed --data cifar10-jpeg
    python benchmarks/training_throughput.py accuracy --data cifar10-jpeg --teacher runs/…/networks/teacher
    python benchmarks/training_throughput.py table

CIFAR-10, batch 64. `speed`: each repeat runs every loop in turn on a few hundred images, two epochs of which the
second is timed; ratios are to the plain loop of the same repeat. `accuracy`: ResNet-56 to ResNet-20, 10,000 images, 10
epochs, three seeds, one JSON a cell; what is there is not run again. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peers
import torch

from kdeploy import artifacts, events, machine, methods, models, sources
from kdeploy.cli.console import Terminal
from kdeploy.loading import EvalBatches, TensorSet, TrainBatches, Views
from kdeploy.models.classifier import Classifier
from kdeploy.models.storage import load_network
from kdeploy.provenance import now, revision
from kdeploy.recipe.schema import AugmentSpec, CacheSpec, DataSpec, NetworkSpec, TrainSpec
from kdeploy.report.markdown_page import machine_lines
from kdeploy.report.seeds import mean_of
from kdeploy.sources.base import ImageSet, Splits
from kdeploy.training import loop, setup
from kdeploy.training.evaluate import accuracy, predict
from kdeploy.training.objective import Distillation, Lesson
from kdeploy.training.teacher_cache import open_cache
from kdeploy.training.teaching import Live
from kdeploy.training.views import View, survey

RESULTS = Path(__file__).parent / "results" / "throughput"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
TEMPERATURE, ALPHA, BATCH, CROP = 4.0, 0.9, 64, 4
OURS = {
    "cached": (True, "auto"),
    "live": (False, "auto"),
    "cached-float32": (True, "float32"),
    "live-float32": (False, "float32"),
}
PEERS = {"plain": peers.plain, "torchdistill": peers.torchdistill}
PAIRS = {"resnet56-resnet20": 3_200, "resnet32x4-resnet8x4": 640}
"""Teacher and student, and the images of a timed epoch."""
IMAGES, EPOCHS, SEEDS = 10_000, 10, (0, 1, 2)
LEVEL = 0.6
COMPARED = ("plain", "live", "cached")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "accuracy", "table"))
    parser.add_argument("--data", type=Path, help="folder or zip files of CIFAR-10 as images")
    parser.add_argument("--teacher", type=Path, help="folder of the fine-tuned ResNet-56; for accuracy")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    with events.listening(Terminal()):
        if asked.what == "speed":
            speed(read(asked.data, 2 * max(PAIRS.values())), asked.repeats)
        if asked.what == "accuracy":
            for seed in SEEDS:
                for name in COMPARED:
                    accuracy_cell(name, seed, asked)
    artifacts.write_text(RESULTS.parent / "throughput.md", table())


def read(data: Path, limit: int) -> Splits:
    return sources.load(DataSpec(source="imagefolder", root=str(data), limit=limit), base=Path())


def make(model: str, seed: int) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(models.create(NetworkSpec(model=model), classes=10, channels=3), MEAN, STD)


def speed(splits: Splits, repeats: int) -> None:
    """Time every loop on both pairs, with a teacher of random weights: its time does not depend on them."""
    for pair, images in PAIRS.items():
        part = ImageSet(splits.train.images[:images], splits.train.labels[:images], splits.train.classes)
        found: dict[str, list[float]] = {}
        for number in range(repeats):
            for name in (*PEERS, *OURS):
                teacher, student = (make(model, seed) for seed, model in enumerate(pair.split("-")))
                spec = TrainSpec(epochs=2, batch=BATCH, lr=0.05, precision=precision_of(name))
                timed = run(name, teacher, student, part, None, spec, 0)
                found.setdefault(name, []).append(images / timed.epoch_seconds[-1])
            events.say(
                f"{pair}: repeat {number + 1} of {repeats}: " + ", ".join(f"{k} {v[-1]:.0f}" for k, v in found.items())
            )
        record(RESULTS / f"speed-{pair}.json", {"images": images, "images_per_s": found})


def accuracy_cell(name: str, seed: int, asked: argparse.Namespace) -> None:
    """Train one student and follow its accuracy on validation over time; test is read once, at the end."""
    target = RESULTS / "accuracy" / f"{name}-{seed}.json"
    if target.exists():
        return
    splits = read(asked.data, IMAGES)
    teacher = load_network(asked.teacher)[0].eval().requires_grad_(False)
    student = make("resnet20", seed)
    spec = TrainSpec(epochs=EPOCHS, batch=BATCH, lr=0.1, precision=precision_of(name))
    timed = run(name, teacher, student, splits.train, splits.validation, spec, seed)
    record(
        target,
        {
            "loop": name,
            "seed": seed,
            **asdict(timed),
            "test_accuracy": score(student, splits.test),
            "test_samples": len(splits.test),
        },
    )


@dataclass(frozen=True)
class Timed:
    """Seconds of each epoch's training, accuracy on validation after it, and seconds of making the teacher cache."""

    epoch_seconds: list[float]
    validation_accuracy: list[float | None]
    cache_s: float = 0.0


def run(
    name: str,
    teacher: Classifier,
    student: Classifier,
    train: ImageSet,
    validation: ImageSet | None,
    spec: TrainSpec,
    seed: int,
) -> Timed:
    """Train with the loop `name`."""
    teacher.eval().requires_grad_(False)
    if name in OURS:
        return ours(teacher, student, train, validation, spec, seed, cached=OURS[name][0])
    task = peers.Task(teacher, student, np.asarray(train.images), train.labels, spec, CROP, TEMPERATURE, ALPHA, seed)
    lines = [(seconds, score(student, validation) if validation else None) for seconds in PEERS[name](task)]
    return Timed([seconds for seconds, _ in lines], [found for _, found in lines])


def ours(
    teacher: Classifier,
    student: Classifier,
    train: ImageSet,
    validation: ImageSet | None,
    spec: TrainSpec,
    seed: int,
    *,
    cached: bool,
) -> Timed:
    """Our loop, with the teacher at each step or asked beforehand for as many views as there are epochs."""
    decided = setup.choose(spec, torch.device("cpu"))
    decided.place(teacher)
    method = methods.create("kd", temperature=TEMPERATURE, alpha=ALPHA)
    needs = [method.needs]
    ours_at, theirs_at = survey(student, teacher, needs, shape=(3, 32, 32), classes=10)
    augment = AugmentSpec(crop=CROP, flip=True)
    views = Views(TensorSet.from_images(train, "cpu"), augment, seed=seed, count=spec.epochs if cached else None)
    live = Live(teacher, View(teacher, theirs_at, needs, "teacher"))
    with tempfile.TemporaryDirectory() as folder:
        cache = CacheSpec(views=spec.epochs, folder=folder)
        started = time.perf_counter()
        teaching = open_cache(live, theirs_at, needs, views, cache, decided, {"of": "benchmark"}) if cached else live
        cache_s = time.perf_counter() - started
        lesson = Lesson(teaching, [(method, ALPHA)], View(student, ours_at, needs, "student"))
        objective = Distillation([lesson], 1 - ALPHA)
        fitted = loop.fit(
            student,
            objective,
            train=TrainBatches(views, batch=spec.batch, seed=seed),
            validation=None if validation is None else EvalBatches(TensorSet.from_images(validation, "cpu")),
            spec=spec,
            setup=decided,
            folder=Path(folder) / "network",
            label="ours, cached" if cached else "ours",
        )
    return Timed(
        [line.seconds for line in fitted.metrics], [line.validation_accuracy for line in fitted.metrics], cache_s
    )


def precision_of(name: str) -> Any:
    return OURS[name][1] if name in OURS else "float32"


def score(student: Classifier, images: ImageSet) -> float:
    """Accuracy in float32."""
    decided = setup.choose(TrainSpec(precision="float32"), torch.device("cpu"))
    return accuracy(*predict(student, EvalBatches(TensorSet.from_images(images, "cpu")), decided))


def record(path: Path, content: dict[str, Any]) -> None:
    about = {"measured_at": now(), "revision": revision(), "machine": machine.fingerprint()}
    artifacts.write_json(path, {"schema_version": 1, **content, "batch": BATCH, **about})


def table() -> str:
    """All cells that are there, as Markdown."""
    parts = ["# Training throughput: KD on CIFAR-10, batch 64\n"]
    for pair in PAIRS:
        path = RESULTS / f"speed-{pair}.json"
        if path.exists():
            parts.append(speed_table(pair, artifacts.read_json(path)))
    cells = [artifacts.read_json(path) for path in sorted((RESULTS / "accuracy").glob("*.json"))]
    if cells:
        parts.append(accuracy_table(cells))
    return "\n".join([*parts, made_on([artifacts.read_json(path) for path in sorted(RESULTS.rglob("*.json"))])])


def made_on(found: list[dict[str, Any]]) -> str:
    """The machine and the revision of all that is in the tables; those of each cell are in its JSON."""
    last = max(found, key=lambda one: one["measured_at"])
    revisions = ", ".join(sorted({str(one["revision"]) for one in found}))
    return "## Machine\n\n" + machine_lines(last["machine"], revision=revisions, written=last["measured_at"]) + "\n"


def speed_table(pair: str, found: dict[str, Any]) -> str:
    speeds = found["images_per_s"]
    lines = [
        f"## {pair.replace('-', ' to ')}\n",
        f"{found['images']} images an epoch; ratio to the plain loop of the same repeat: median [lowest, highest] of "
        f"{len(speeds['plain'])}.\n",
        "| loop | images/s (median) | times the plain loop |\n|:--|--:|--:|",
    ]
    for name, group in speeds.items():
        ratios = [one / plain for one, plain in zip(group, speeds["plain"], strict=True)]
        spread = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        lines.append(f"| {name} | {statistics.median(group):.0f} | {spread} |")
    return "\n".join(lines) + "\n"


def accuracy_table(cells: list[dict[str, Any]]) -> str:
    lines = [
        "## Time to accuracy: ResNet-56 to ResNet-20, 10,000 images, 10 epochs\n",
        f"Top-1 of the last epoch on {cells[0]['test_samples']:,} test images, mean over seeds with its 95 % t "
        "interval. Making the cache stands beside the seconds of training and is counted in the time to "
        f"{LEVEL:.0%} on validation, reached at the end of an epoch.\n",
        f"| loop | test accuracy (%) | seeds | training (s) | cache (s) | to {LEVEL:.0%} (s) |",
        "|:--|--:|--:|--:|--:|--:|",
    ]
    for name in COMPARED:
        if group := [one for one in cells if one["loop"] == name]:
            mean = mean_of([100 * one["test_accuracy"] for one in group])
            interval = "" if mean.low is None or mean.high is None else f" [{mean.low:.1f}, {mean.high:.1f}]"
            training = statistics.fmean(sum(one["epoch_seconds"]) for one in group)
            cache = statistics.fmean(one["cache_s"] for one in group)
            reached = [at for one in group if (at := seconds_to(one, LEVEL)) is not None]
            shown = f"{statistics.fmean(reached):.0f}" if len(reached) == len(group) else "not reached"
            lines.append(
                f"| {name} | {mean.value:.2f}{interval} | {len(group)} | {training:.0f} | {cache:.0f} | {shown} |"
            )
    return "\n".join(lines) + "\n"


def seconds_to(cell: dict[str, Any], level: float) -> float | None:
    """Seconds until validation reached `level`, at the end of an epoch, with the making of the cache."""
    spent = cell["cache_s"] + np.cumsum(cell["epoch_seconds"])
    return next((float(at) for at, one in zip(spent, cell["validation_accuracy"], strict=True) if one >= level), None)


if __name__ == "__main__":
    main()
