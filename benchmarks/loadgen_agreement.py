"""Whether our SingleStream and LoadGen's own give the same p90: both on one open engine, in short blocks in turns.

    python benchmarks/loadgen_agreement.py [--onnx NETWORK.onnx] [--rounds 30] [--block 1]

Without a network of yours it is a small convolutional one with random weights. One process, one thread, one core;
LoadGen's logging thread has the other cores. Each round has a block of either in random order, and the ratio of a
round is that of its two p90. It holds when the 99 % bootstrap interval of the median ratio, over rounds, lies within
5 %. What either adds by itself is measured on an engine that does nothing. Writes `loadgen-agreement.json` and `.md`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdeploy import artifacts, machine
from kdeploy.bench import loadgen
from kdeploy.bench.inputs import inputs_for, layout_of_file
from kdeploy.bench.scenarios import Settings, WallClock, find
from kdeploy.bench.scenarios.base import Load, Run
from kdeploy.bench.statistics import early_stopping_min_count
from kdeploy.bench.warming import no_garbage_collection, warm_up
from kdeploy.engines.onnxruntime import OnnxRuntime
from kdeploy.report.figures import percent, significant
from kdeploy.report.markdown_page import machine_lines

AGREEMENT = 0.05
CONFIDENCE = 0.99
BOOTSTRAPS = 10_000
SCENARIO = "single-stream"
P90_COUNT = early_stopping_min_count(0.90)


def save_network(path: Path) -> None:
    """Ten 3 x 3 convolutions of 32 channels on 32 x 32 pixels: 92 million multiply-accumulates, float32."""
    from onnx import TensorProto, helper, numpy_helper, save

    generator = np.random.default_rng(0)
    nodes, weights, last, channels = [], [], "image", 3
    for layer in range(10):
        kernel = generator.standard_normal((32, channels, 3, 3)).astype(np.float32) / 10
        weights.append(numpy_helper.from_array(kernel, f"w{layer}"))
        nodes.append(helper.make_node("Conv", [last, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        last, channels = f"r{layer}", 32
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["logits"]))
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 32, 32])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 32])]
    graph = helper.make_graph(nodes, "small", inputs, outputs, weights)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def ours(run: Run, queries: Sequence[NDArray[Any]], settings: Settings) -> float:
    """p90 of our SingleStream, in milliseconds."""
    clock = WallClock()
    with no_garbage_collection():
        warm = warm_up(run, queries, settings.min_time_s, clock.now)
        made, _ = find(SCENARIO).measure(
            Load(run, queries, settings, clock, lambda share: None, warm.calls, warm.typical_ns)
        )
    assert made.value is not None, made.reasons
    return made.value


def theirs(run: Run, queries: Sequence[NDArray[Any]], settings: Settings) -> float:
    """p90 of LoadGen's SingleStream, in milliseconds; its warm-up is the same."""
    with TemporaryDirectory() as folder:
        made = loadgen.drive(SCENARIO, run, queries, settings, Path(folder))
    assert made.value is not None, made.recommendations
    return made.value


def in_turns(run: Run, queries: Sequence[NDArray[Any]], settings: Settings, rounds: int) -> dict[str, list[float]]:
    """p90 of each block, by who measured it."""
    sides = {"kdeploy": ours, "loadgen": theirs}
    found: dict[str, list[float]] = {name: [] for name in sides}
    for order in np.random.default_rng(settings.seed).random(rounds) < 0.5:
        for name in sorted(sides, reverse=bool(order)):
            found[name].append(sides[name](run, queries, settings))
    return found


def median_ratio(found: dict[str, list[float]], seed: int = 0) -> tuple[float, float, float]:
    """Median over rounds of LoadGen's p90 against ours, with its bootstrap interval."""
    ratios = np.array(found["loadgen"]) / np.array(found["kdeploy"])
    drawn = np.random.default_rng(seed).choice(ratios, (BOOTSTRAPS, len(ratios)))
    risk = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.median(drawn, axis=1), [risk, 1 - risk])
    return float(np.median(ratios)), float(low), float(high)


def verdict(ratio: tuple[float, float, float]) -> str:
    """Whether the interval lies within the agreement asked for, beside it, or across its border."""
    low, high = ratio[1] - 1, ratio[2] - 1
    if max(abs(low), abs(high)) <= AGREEMENT:
        return "holds"
    return "does not hold" if high < -AGREEMENT or low > AGREEMENT else "not shown: the interval is too wide"


def text(content: dict[str, Any]) -> str:
    """The result as Markdown."""
    ratio, low, high = content["ratio"]
    network, empty = (
        {side: np.median(values) for side, values in content[of].items()} for of in ("p90_ms", "empty_ms")
    )
    return (
        "# Our SingleStream against LoadGen's\n\n"
        f"p90 latency of {content['network']}, float32, ONNX Runtime, batch 1, one thread: {content['rounds']} "
        f"rounds of one block each of {content['block_s']:g} s, in one process, in random order.\n\n"
        "| | p90, ms (median of blocks) | of an engine that does nothing, ms |\n|:--|--:|--:|\n"
        f"| kdeploy | {significant(network['kdeploy'])} | {significant(empty['kdeploy'])} |\n"
        f"| LoadGen {content['loadgen']} | {significant(network['loadgen'])} | {significant(empty['loadgen'])} |\n\n"
        f"LoadGen's p90 is {ratio:.3f} times ours (median of rounds), {percent(CONFIDENCE)} bootstrap interval "
        f"[{low:.3f}, {high:.3f}]. That they agree within {percent(AGREEMENT)}: **{content['verdict']}**.\n\n"
        f"```\n{content['command']}\n```\n\n{machine_lines(content['machine'])}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--block", type=float, default=1.0, metavar="SECONDS")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    asked = parser.parse_args()
    loadgen.require()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    settings = Settings(min_time_s=asked.block, min_count=P90_COUNT)
    with TemporaryDirectory() as folder:
        path = asked.onnx or Path(folder) / "small.onnx"
        if asked.onnx is None:
            save_network(path)
        with OnnxRuntime().open_file(path, threads=1) as session:
            queries = inputs_for(layout_of_file(session, path), 1, None)
            p90 = in_turns(session.run, queries, settings, asked.rounds)
    empty = in_turns(
        lambda query: query, queries, Settings(min_time_s=min(0.2, asked.block), min_count=P90_COUNT), rounds=5
    )
    ratio = median_ratio(p90)
    chosen = "" if asked.onnx is None else f" --onnx {asked.onnx.name}"
    content = {
        "schema_version": 1,
        "command": f"python benchmarks/loadgen_agreement.py{chosen} --rounds {asked.rounds} --block {asked.block:g}",
        "network": "ten 3 x 3 convolutions on 32 x 32 pixels" if asked.onnx is None else asked.onnx.name,
        "rounds": asked.rounds,
        "block_s": asked.block,
        "loadgen": loadgen.version(),
        "ratio": ratio,
        "verdict": verdict(ratio),
        "p90_ms": p90,
        "empty_ms": empty,
        "machine": machine.fingerprint(),
    }
    artifacts.write_json(asked.out / "loadgen-agreement.json", content)
    artifacts.write_text(asked.out / "loadgen-agreement.md", text(content))
    print(text(content))


if __name__ == "__main__":
    main()
