"""What our harness adds to a call: the p50 of `kdeploy bench` against a bare loop around `run_with_iobinding`.

    python benchmarks/bench_overhead.py [--onnx NETWORK.onnx] [--rounds 200]

One process, one core, one thread, and one session of ONNX Runtime's, as two differ in where their weights lie; blocks
of 200 calls of either in random order. The network of its own is three convolutions of some 0.1 ms. Each round's ratio
is that of its two medians; the aim is that the 99 % bootstrap interval of their median lies within 2 %. Writes
`bench-overhead.json` and `.md`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdeploy import artifacts, machine
from kdeploy.bench.blocks import block
from kdeploy.bench.warming import no_garbage_collection, warm_up
from kdeploy.engines._onnxruntime_options import OnnxRuntimeOptions
from kdeploy.engines._onnxruntime_session import OnnxSession, Opening
from kdeploy.provenance import now, revision
from kdeploy.report.figures import significant
from kdeploy.report.markdown_page import machine_lines

AIM = 0.02
CALLS = 200
BOOTSTRAPS = 10_000


def save_network(path: Path, channels: int = 16) -> None:
    """Three 3 x 3 convolutions on 32 x 32 pixels, float32."""
    from onnx import TensorProto, helper, numpy_helper, save

    draw = np.random.default_rng(0)
    shapes = [(channels, 3, 3, 3), (channels, channels, 3, 3), (channels, channels, 3, 3)]
    weights = [draw.standard_normal(shape).astype(np.float32) / 10 for shape in shapes]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w0"], ["first"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["first"], ["middle"]),
            helper.make_node("Conv", ["middle", "w1"], ["second"], pads=[1, 1, 1, 1]),
            helper.make_node("Conv", ["second", "w2"], ["third"], pads=[1, 1, 1, 1]),
            helper.make_node("GlobalAveragePool", ["third"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["logits"]),
        ],
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, channels])],
        [numpy_helper.from_array(weight, f"w{place}") for place, weight in enumerate(weights)],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def bare(session: Any, image: NDArray[np.float32]) -> Callable[[int], float]:
    """A loop that somebody in a hurry would write: bound once, nothing copied. session: ONNX Runtime's."""
    binding = session.io_binding()
    binding.bind_cpu_input(session.get_inputs()[0].name, image)
    output = session.get_outputs()[0]
    answer = np.empty(output.shape, np.float32)
    binding.bind_output(output.name, "cpu", 0, np.float32, answer.shape, answer.ctypes.data)

    def run(calls: int) -> float:
        session.run_with_iobinding(binding)
        taken = []
        for _ in range(calls):
            start = time.perf_counter_ns()
            session.run_with_iobinding(binding)
            taken.append(time.perf_counter_ns() - start)
        return float(np.median(taken)) / 1e6

    return run


def measure(path: Path, rounds: int) -> dict[str, list[float]]:
    """Medians of blocks in milliseconds, by side."""
    opening = Opening(path, 1, OnnxRuntimeOptions(), "all")
    started = opening.start()
    session = OnnxSession(started, opening)
    with closing(session), no_garbage_collection():
        shape = [size or 1 for size in session.input_shape]
        image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        sides = {"kdeploy": lambda calls: block(session.run, [image], calls), "bare": bare(started, image)}
        warm_up(session.run, [image], 2.0)
        for side in sides.values():
            side(CALLS)
        found: dict[str, list[float]] = {name: [] for name in sides}
        for turned in np.random.default_rng(0).random(rounds) < 0.5:
            for name in sorted(sides, reverse=bool(turned)):
                found[name].append(sides[name](CALLS))
    return found


def ratio(found: dict[str, list[float]]) -> tuple[float, float, float]:
    """Median over rounds of ours against the bare loop's, with its 99 % bootstrap interval."""
    ratios = np.array(found["kdeploy"]) / np.array(found["bare"])
    drawn = np.median(np.random.default_rng(0).choice(ratios, (BOOTSTRAPS, len(ratios))), axis=1)
    low, high = np.quantile(drawn, [0.005, 0.995])
    return float(np.median(ratios)), float(low), float(high)


def text(content: dict[str, Any]) -> str:
    """The result as Markdown."""
    value, low, high = content["ratio"]
    medians = {name: significant(float(np.median(blocks))) for name, blocks in content["p50_ms"].items()}
    holds = "holds" if max(abs(low - 1), abs(high - 1)) <= AIM else "does not hold"
    return (
        "# What the harness adds\n\n"
        f"p50 of one network in ONNX Runtime, batch 1, one thread: kdeploy {medians['kdeploy']} ms, a bare loop around "
        f"run_with_iobinding {medians['bare']} ms, by {content['rounds']} blocks of {CALLS} calls of each in turns. "
        f"Ours is {value:.4f} times the bare one, 99 % bootstrap interval [{low:.4f}, {high:.4f}]: the aim of "
        f"{AIM:.0%} **{holds}**.\n\n```\npython benchmarks/bench_overhead.py\n```\n\n"
        f"{machine_lines(content['machine'])}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", type=Path)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    asked = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with TemporaryDirectory() as folder:
        path = asked.onnx or Path(folder) / "small.onnx"
        if asked.onnx is None:
            save_network(path)
        found = measure(path, asked.rounds)
    about = {"measured_at": now(), "revision": revision(), "machine": machine.fingerprint()}
    content = {"schema_version": 1, "rounds": asked.rounds, "p50_ms": found, "ratio": ratio(found), **about}
    artifacts.write_json(asked.out / "bench-overhead.json", content)
    artifacts.write_text(asked.out / "bench-overhead.md", text(content))
    print(text(content))


if __name__ == "__main__":
    main()
