"""What a step of each method costs with the teacher run in it, relative to plain KD, on a quiet machine.

    python benchmarks/method_steps.py --data cifar10-jpeg --teacher TEACHER      (as benchmarks/methods.py)

Rounds: in each, every method and cross-entropy alone train one epoch of 20 steps, KD first and last; the ratio of a
method is to the mean of the two KDs of its round. Written: the median over rounds, with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from methods import ALONE, BATCH, RESULTS, load, shared

from kdeploy import artifacts, events, machine, pipeline
from kdeploy.cli.console import Terminal
from kdeploy.provenance import now, revision

STEPS = 20
PHASES = {"factor-transfer": "{paraphraser_epochs: 1}", "hssakd": "{head_epochs: 1}"}
"""Options that shorten trainings which come first: they are no part of a step."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder or zip files of CIFAR-10 as images")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of the fine-tuned teacher")
    parser.add_argument("--student", default="resnet8")
    parser.add_argument("--methods", default=",".join(name for name in [*shared(), "hssakd"] if name != "kd"))
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    ratios: dict[str, list[float]] = {}
    with events.listening(Terminal()):
        for number in range(asked.rounds):
            speeds = {name: speed(asked, name) for name in ["kd", *asked.methods.split(","), ALONE]}
            kd = statistics.fmean([speeds["kd"], speed(asked, "kd")])
            for name, one in speeds.items():
                ratios.setdefault(name, []).append(kd / one)
            events.say(f"round {number + 1} of {asked.rounds} done: {kd:.0f} images a second with KD")
    found = {
        name: {"median": statistics.median(group), "low": min(group), "high": max(group)}
        for name, group in ratios.items()
    }
    artifacts.write_json(
        RESULTS / "methods" / f"steps-{asked.student}.json",
        {
            "schema_version": 1,
            "ratios": found,
            "rounds": asked.rounds,
            "steps": STEPS,
            "batch": BATCH,
            "kd_images_per_s": kd,
            "measured_at": now(),
            "revision": revision(),
            "machine": machine.fingerprint(),
        },
    )


def speed(asked: argparse.Namespace, method: str) -> float:
    """Images a second of one epoch."""
    role = "alone" if method == ALONE else "student"
    loaded = load(
        asked.data,
        asked.teacher,
        f"data.limit={STEPS * BATCH}",
        "data.validation=0.01",
        f"student.model={asked.student}",
        f"distill.method={'kd' if method == ALONE else method}",
        f"distill.options={PHASES.get(method, '{}')}",
        f"distill.baseline={'alone' if method == ALONE else 'none'}",
        "distill.epochs=1",
    )
    with tempfile.TemporaryDirectory() as folder:
        run = pipeline.open_run(loaded, Path(folder) / "run")
        needed = ("data", "networks/teacher", f"networks/{role}")
        pipeline.execute(run, [stage for stage in pipeline.training(loaded) if stage.name in needed])
        line = (run.folder / "networks" / role / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        return float(json.loads(line)["images_per_s"])


if __name__ == "__main__":
    main()
