"""What each rewrite in front of int8 is worth: a network quantised with all of them, and with each left out in turn.

    python benchmarks/rewrites.py [--network torchvision:mobilenet_v3_small] [--size 224] [--rounds 300]

Random weights and random images, so this is about speed alone. One thread, batch 1; all graphs are open at once and
take turns call by call, so that what else the machine does falls on all of them alike. The ratio is that of the
quickest calls: on a machine that others use, medians tell of the others. Writes `rewrites-<network>.json` and `.md`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np

from kdeploy import artifacts, machine
from kdeploy.engines.onnxruntime import OnnxRuntime
from kdeploy.quantize import half, rewrites, static
from kdeploy.quantize.schemes import choose_scheme
from kdeploy.recipe.schema import NetworkSpec
from kdeploy.report.figures import significant
from kdeploy.report.markdown_page import machine_lines
from kdeploy.stages.model import Asked, export_network

CALIBRATED_ON = 4
REWRITES: dict[str, tuple[Any, str, str]] = {
    "pool_globally": (rewrites, "pool_globally", "`ReduceMean` over the image to `GlobalAveragePool`"),
    "hard activations": (static, "lay_open", "hard-swish and hard-sigmoid as integer additions and products"),
    "absorb_factors": (static, "absorb_factors", "a constant factor into a scale"),
    "widen_constants": (rewrites, "widen_constants", "the normalisation's constants along the width"),
    "keep_logits_float": (rewrites, "keep_logits_float", "logits out of the integer product as float32"),
    "strip_value_info": (rewrites, "strip_value_info", "no noted shapes: they mislead the quantiser when stale"),
}


def without(name: str, build: Callable[[], None]) -> None:
    """Build with this rewrite left out."""
    place, attribute, _ = REWRITES[name]
    with mock.patch.object(place, attribute, lambda model, *_: model):
        build()


def prepare(network: str, size: int, folder: Path) -> dict[str, Path]:
    """The graphs that are compared, by name; "all" has every rewrite."""
    spec = NetworkSpec(model=network)
    float32 = export_network(spec, Asked(folder, shape=(3, size, size), classes=1000)).written[0]
    shape = (CALIBRATED_ON, size, size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    scheme = choose_scheme("auto", machine.instruction_sets())
    graphs = {"float32": float32, "float16": folder / "float16.onnx"}
    half.to_float16(float32, graphs["float16"])
    for name in ("all", *REWRITES):
        target = graphs[name] = folder / f"int8-{name.replace(' ', '-')}.onnx"

        def build(target: Path = target) -> None:
            static.quantize(float32, target, scheme=scheme, images=images)

        if name == "all":
            build()
        else:
            without(name, build)
    return graphs


def time_in_turns(graphs: dict[str, Path], size: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each call at batch 1, by graph."""
    sessions = {name: OnnxRuntime().open_file(path, threads=1) for name, path in graphs.items()}
    image = np.random.default_rng(1).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    samples: dict[str, list[float]] = {name: [] for name in graphs}
    for turn in range(rounds + 3):
        for name, session in sessions.items():
            started = time.perf_counter()
            session.run(image)
            if turn >= 3:
                samples[name].append(round(1000 * (time.perf_counter() - started), 4))
    return samples


def table(network: str, size: int, samples: dict[str, list[float]]) -> str:
    """The result as Markdown."""
    quickest = {name: min(values) for name, values in samples.items()}
    lines = [
        f"# Rewrites in front of int8: {network}",
        f"Random weights, {size}x{size}, batch 1, one thread, {len(samples['all'])} calls each in turns. Times are "
        "those of the quickest call, and ratios of these; every call is in the JSON file.",
        "| graph | ms | against float32 |\n|:--|--:|--:|\n"
        + "\n".join(
            f"| {said} | {significant(quickest[name])} | {significant(quickest['float32'] / quickest[name])} |"
            for name, said in (("float32", "float32"), ("float16", "float16"), ("all", "int8, all rewrites"))
        ),
        "| rewrite | what it does | int8 without it, ms | worth |\n|:--|:--|--:|--:|\n"
        + "\n".join(
            f"| {name} | {what} | {significant(quickest[name])} | {significant(quickest[name] / quickest['all'])}× |"
            for name, (_, _, what) in REWRITES.items()
        ),
    ]
    return "\n\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="torchvision:mobilenet_v3_small")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        samples = time_in_turns(prepare(asked.network, asked.size, Path(folder)), asked.size, asked.rounds)
    where = machine.fingerprint()
    name = f"rewrites-{asked.network.rpartition(':')[2]}"
    command = f"python benchmarks/rewrites.py --network {asked.network} --size {asked.size} --rounds {asked.rounds}"
    content = {"schema_version": 1, "command": command, "network": asked.network, "machine": where}
    artifacts.write_json(asked.out / f"{name}.json", {**content, "samples_ms": samples})
    text = f"{table(asked.network, asked.size, samples)}\n\n```\n{command}\n```\n\n{machine_lines(where)}\n"
    artifacts.write_text(asked.out / f"{name}.md", text)
    print(text)


if __name__ == "__main__":
    main()
