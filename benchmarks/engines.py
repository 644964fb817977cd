"""Every engine in every precision that it runs, beside each other and beside others' int8, on this machine.

    python benchmarks/engines.py --data DIR --resnet8 DIR --resnet20 resnet20-12fca82f.th --mobilenetv2 DIR --tflite DIR

--data: CIFAR-10 as JPEG files. --resnet8, --mobilenetv2: of a trained network, such as networks/student in the folder
runs/cifar10-resnet56-resnet8-kd/seed-0. --resnet20: the checkpoint that the recipe cifar10/resnet20-noise describes.
--tflite: of MLPerf Tiny's ResNet-8, pretrainedResnet.tflite and pretrainedResnet_quant.tflite. Networks of 224x224 have
random weights: they are there for speed. Peers: torch, eager; ONNX Runtime's own quantiser at its defaults; OpenVINO's
(NNCF, from PyPI); LiteRT (ai-edge-litert, from PyPI) on MLPerf Tiny's two files, beside our ResNet-8.

All rows of a network are open at once, a process each, on one core and one thread at batch 1, and are called in short
blocks in random order (`interleaved.py`). Accuracy is on all test images of --data. One JSON a network goes to
benchmarks/results/engines/; networks that are there are not measured again. The last step writes the table.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from engine_rows import Row, build_further, mlperf_tiny, ours, peers
from interleaved import Side, measure, ratio

from kdeploy import artifacts, events, machine
from kdeploy.bench.statistics import wilson
from kdeploy.cli.console import Terminal
from kdeploy.provenance import now, revision
from kdeploy.recipe.schema import NetworkSpec, NormalizeSpec, RenameSpec
from kdeploy.report.figures import significant, size
from kdeploy.report.markdown_page import machine_lines
from kdeploy.stages.model import IMAGENET, Asked, ModelRun, export_network

RESULTS = Path(__file__).parent / "results"
ENGINES = ("pytorch", "onnxruntime", "openvino")
PRECISIONS = ("float32", "int8")
AT_224 = ("resnet18", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0")
BASELINE = "pytorch float32"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder or zip files of CIFAR-10 as images")
    parser.add_argument("--resnet8", type=Path, help="folder of a trained ResNet-8")
    parser.add_argument("--resnet20", type=Path, help="somebody else's ResNet-20")
    parser.add_argument("--mobilenetv2", type=Path, help="folder of a trained MobileNetV2")
    parser.add_argument("--tflite", type=Path, help="folder of MLPerf Tiny's ResNet-8; left out, it has no rows")
    parser.add_argument("--networks", default=",".join(("resnet8", "resnet20", "mobilenetv2", *AT_224)))
    parser.add_argument("--rounds", type=int, default=60, help="blocks of each row")
    parser.add_argument("--block", type=float, default=0.3, help="seconds of a block")
    asked = parser.parse_args()
    with events.listening(Terminal()):
        for name in asked.networks.split(","):
            target = RESULTS / "engines" / f"{name}.json"
            if not target.exists():
                with tempfile.TemporaryDirectory() as folder:
                    one = measured(name, asked, Path(folder))
                artifacts.write_json(target, one)
    artifacts.write_text(RESULTS / "engines.md", table())


def measured(name: str, asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Build every row of a network, measure all of them beside each other, and say what was found."""
    run = exported(name, asked, folder)
    rows = {**ours(run), **peers(run, folder)}
    if name == "resnet8" and asked.tflite is not None:
        rows |= mlperf_tiny(asked.tflite)
    sides = measure({key: row.opener for key, row in rows.items()}, rounds=asked.rounds, block_s=asked.block)
    baseline = next(side for side in sides if side.name == BASELINE)
    found = [described(side, rows[side.name], baseline, run) for side in sides]
    settings = {"rounds": asked.rounds, "block_s": asked.block, "threads": 1, "batch": 1}
    about = {"measured_at": now(), "revision": revision(), "machine": machine.fingerprint()}
    return {"schema_version": 1, "network": name, "settings": settings, "rows": found, **about}


def exported(name: str, asked: argparse.Namespace, folder: Path) -> ModelRun:
    """A network with our engines, built."""
    small = {"shape": (3, 32, 32), "classes": 10, "samples": 10_000}
    size_224: dict[str, Any] = {"classes": 1000, "samples": 256}
    networks = {
        "resnet8": (partial(_trained, asked.resnet8), small),
        "resnet20": (partial(_akamaster, asked.resnet20), small),
        "mobilenetv2": (partial(_trained, asked.mobilenetv2), small),
        **{model: (partial(NetworkSpec, model=f"torchvision:{model}"), size_224) for model in AT_224},
    }
    spec, shape = networks[name]
    run = export_network(spec(), Asked(folder, data=asked.data, engines=ENGINES, precisions=PRECISIONS, **shape))
    build_further(run)
    return run


def _trained(folder: Path) -> NetworkSpec:
    card = artifacts.read_json(folder / f"{folder.name}.json")
    normalize = NormalizeSpec(mean=tuple(card["mean"]), std=tuple(card["std"]))
    return NetworkSpec(
        model=card["model"],
        width=card["width"],
        options=card["options"],
        checkpoint=str((folder / f"{folder.name}.safetensors").resolve()),
        normalize=normalize,
    )


def _akamaster(checkpoint: Path) -> NetworkSpec:
    rename = (RenameSpec(pattern=r"^module\.", replace=""), RenameSpec(pattern=r"^linear\.", replace="fc."))
    return NetworkSpec(
        model="resnet20", options={"shortcut": "A"}, checkpoint=str(checkpoint), rename=rename, normalize=IMAGENET
    )


def described(side: Side, row: Row, baseline: Side, run: ModelRun) -> dict[str, Any]:
    """What a row shows: figures, with intervals where they have one."""
    test = run.splits.validation
    accuracy = None
    if run.labelled:
        right = int((row.predict(test.images) == test.labels).sum())
        accuracy = {"value": right / len(test), "interval": wilson(right, len(test)), "samples": len(test)}
    faster, low, high = ratio(baseline, side)
    return {
        "row": side.name,
        "p50_ms": side.p50(),
        "p99_ms": side.p99(),
        "calls": sum(len(block) for block in side.blocks),
        "faster": {"value": faster, "interval": [low, high]},
        "accuracy": accuracy,
        "size_bytes": sum(path.stat().st_size for path in row.files),
        "block_medians_ms": [round(float(np.median(block)), 5) for block in side.blocks],
    }


def table() -> str:
    """All networks that were measured, as Markdown."""
    parts = [
        "# Engines\n\nBatch 1, one thread, raw images in and probabilities out; all rows of a network open at once and "
        "called in turns. Faster: than torch, eager, by the medians, with a 95 % bootstrap interval over blocks.\n"
    ]
    found = [artifacts.read_json(path) for path in sorted((RESULTS / "engines").glob("*.json"))]
    parts += ["## Aims\n", *aims(found), ""]
    for one in found:
        parts.append(f"## {one['network']}\n\n| engine | p50 (ms) | p99 (ms) | faster | accuracy (%) | size | calls |")
        parts.append("|:--|--:|--:|--:|--:|--:|--:|")
        parts += [line(row) for row in one["rows"]]
        parts.append("")
    return "\n".join([*parts, machine_lines(found[-1]["machine"])]) + "\n"


def aims(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the tables say of the aims: ratios of medians; above 1 is faster, points below 0 are lost."""
    lines = [
        "| network | ours, the fastest | times torch, eager | times the fastest peer | ONNX Runtime, int8 over float32 "
        "| int8's points |",
        "|:--|:--|--:|--:|--:|--:|",
    ]
    for one in found:
        rows = {row["row"]: row for row in one["rows"]}
        ours = min((row for name, row in rows.items() if not is_peer(name)), key=lambda row: row["p50_ms"])
        peer = min((row for name, row in rows.items() if is_peer(name)), key=lambda row: row["p50_ms"])
        plain, quantised = rows["onnxruntime float32"], rows["onnxruntime int8"]
        points = "n/a"
        if plain["accuracy"] is not None:
            points = f"{100 * (quantised['accuracy']['value'] - plain['accuracy']['value']):+.2f}"
        lines.append(
            f"| {one['network']} | {ours['row']} | {significant(ours['faster']['value'])} "
            f"| {significant(peer['p50_ms'] / ours['p50_ms'])} ({peer['row']}) "
            f"| {significant(plain['p50_ms'] / quantised['p50_ms'])} | {points} |"
        )
    return lines


def is_peer(row: str) -> bool:
    """Whether somebody else made it: "onnxruntime int8, its quantiser's defaults"; torch eager is the baseline."""
    return "," in row or row == BASELINE


def line(row: Mapping[str, Any]) -> str:
    faster, accuracy = row["faster"], row["accuracy"]
    low, high = (significant(value) for value in faster["interval"])
    said = "n/a"
    if accuracy is not None:
        said = f"{100 * accuracy['value']:.2f} [{', '.join(f'{100 * end:.1f}' for end in accuracy['interval'])}]"
    p99 = "n/a" if row["p99_ms"] is None else significant(row["p99_ms"])
    return (
        f"| {row['row']} | {significant(row['p50_ms'])} | {p99} | {significant(faster['value'])}× [{low}, {high}] "
        f"| {said} | {size(row['size_bytes'])} | {row['calls']:,} |"
    )


if __name__ == "__main__":
    main()
