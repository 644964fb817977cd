"""Does `kdeploy bench A B` keep its two promises? An engine with itself, and with one that is 1 % slower.

    python benchmarks/harness_calibration.py [--onnx NETWORK.onnx] [--real 20] [--seconds 40]

At most 5 % of comparisons of an engine with itself may say that they differ, and of those in which one side has 1 % of
work added (a spin of known length after each call) at least 95 % must be found, within 60 s each. `--real` comparisons
of either kind are made for real, eight fresh processes a side. The rest of 200 are drawn from what these recorded: of
a real comparison, the processes of both sides are dealt anew to two sides, with all their blocks, and for the second
kind one of these is made slower by the share that was added. As every process of a recorded pair runs the same engine
(of the slowed side, after its known share is taken off), such a deal is a comparison that might have been.

One JSON a real comparison goes to benchmarks/results/harness-calibration/; those that are there are not made again. The
last step writes harness-calibration.md with Wilson's intervals.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from bench_overhead import save_network
from numpy.typing import NDArray

from kdeploy import artifacts, events, machine
from kdeploy.bench.comparison import decide
from kdeploy.bench.interleaving import PROCESSES, interleave
from kdeploy.bench.statistics import wilson
from kdeploy.cli.console import Terminal
from kdeploy.provenance import now, revision
from kdeploy.report.figures import percent
from kdeploy.report.markdown_page import machine_lines

ADDED = 0.01
OF_EACH = 200
SPINNING = (str(Path(__file__).with_name("spinning_blocks.py")),)
SIDES = ("one", "other")
KINDS = {"itself": 0.0, "slower": ADDED}


def compare(path: Path, added: float, seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """One real comparison: the network with itself, its second side slowed by the share `added` of its own median."""
    first = shutil.copy(path, folder / "one.onnx")
    by_ns = 0
    if added:
        alone, _, _ = interleave({"one": first}, threads=1, processes=2, seconds=1.0, program=SPINNING)
        by_ns = round(added * float(np.median(alone["one"])) * 1e6)
    second = shutil.copy(path, folder / (f"other+{by_ns}ns.onnx" if by_ns else "other.onnx"))
    sides = dict(zip(SIDES, (first, second), strict=True))
    medians, calls, took = interleave(
        sides, threads=1, processes=PROCESSES, seconds=seconds, seed=seed, program=SPINNING
    )
    ratio, low, high, decision = decide(medians, "one", seed)["other"]
    return {
        "added_ns": by_ns,
        "decision": decision,
        "ratio": ratio,
        "interval": [low, high],
        "calls": calls,
        "duration_s": took,
        "block_medians_ms": {name: np.round(found, 6).tolist() for name, found in medians.items()},
    }


def dealt(recorded: list[dict[str, Any]], added: float, generator: np.random.Generator) -> str:
    """The decision of a comparison that might have been."""
    one = recorded[generator.integers(len(recorded))]
    sides = {name: np.array(found) for name, found in one["block_medians_ms"].items()}
    if one["added_ns"]:
        sides["other"] = sides["other"] - one["added_ns"] / 1e6
    pool = np.concatenate(list(sides.values()))
    chosen = generator.permutation(len(pool))
    first, second = pool[chosen[: len(pool) // 2]], pool[chosen[len(pool) // 2 :]]
    made: dict[str, NDArray[np.float64]] = {"one": first, "other": second + added * float(np.median(pool))}
    return decide(made, "one", int(generator.integers(1 << 31)))["other"][3]


def result(cells: Path) -> dict[str, Any]:
    """How often each kind was decided rightly, with its interval."""
    found: dict[str, Any] = {}
    generator = np.random.default_rng(0)
    recorded = [artifacts.read_json(path) for path in sorted(cells.glob("*.json"))]
    for kind, added in KINDS.items():
        real = [one["decision"] for one in recorded if one["kind"] == kind]
        drawn = [dealt(recorded, added, generator) for _ in range(OF_EACH - len(real))]
        wanted = "slower" if added else "no difference shown"
        right = sum(decision == wanted for decision in (*real, *drawn))
        low, high = wilson(right, OF_EACH)
        of_real = sum(decision == wanted for decision in real)
        found[kind] = {"right": right, "of": OF_EACH, "interval": [low, high], "real": len(real), "real_right": of_real}
    longest = max(one["whole_s"] for one in recorded)
    return {**found, "longest_s": longest, "machine": recorded[-1]["machine"]}


def text(content: dict[str, Any], seconds: float) -> str:
    """The result as Markdown. seconds: of each real comparison, as they were asked for."""
    lines = [
        "# The harness, calibrated\n",
        "| two sides | comparisons | of these real | decided rightly | 95 % interval | aim |",
        "|:--|--:|--:|--:|--:|--:|",
    ]
    for kind, said, aim in (
        ("itself", "one engine", "at least 95 %"),
        ("slower", f"one with {ADDED:.0%} added", "at least 95 %"),
    ):
        one = content[kind]
        low, high = one["interval"]
        lines.append(
            f"| {said} | {one['of']} | {one['real_right']} of {one['real']} right "
            f"| {percent(one['right'] / one['of'])} | {percent(low)} to {percent(high)} | {aim} |"
        )
    return (
        "\n".join(lines)
        + f"\n\nRightly: of one engine, that no difference is shown; of the other kind, that it is slower. {PROCESSES} "
        f"processes a side; the longest real comparison took {content['longest_s']:.0f} s, from starting its "
        f"processes to the decision.\n\n```\npython benchmarks/harness_calibration.py --seconds {seconds:g}\n```\n\n"
        f"{machine_lines(content['machine'])}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", type=Path)
    parser.add_argument("--real", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=40.0, help="of calls in turns, the opening not counted")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    asked = parser.parse_args()
    cells = asked.out / "harness-calibration"
    with events.listening(Terminal()):
        for number in range(asked.real):
            for kind, added in KINDS.items():
                target = cells / f"{kind}-{number}.json"
                if not target.exists():
                    artifacts.write_json(target, cell(asked.onnx, kind, added, asked.seconds, number))
    artifacts.write_text(asked.out / "harness-calibration.md", text(result(cells), asked.seconds))


def cell(onnx: Path | None, kind: str, added: float, seconds: float, seed: int) -> dict[str, Any]:
    """One real comparison with when, where and how long."""
    about = {"measured_at": now(), "revision": revision(), "machine": machine.fingerprint()}
    began = time.monotonic()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = onnx or folder / "small.onnx"
        if onnx is None:
            save_network(path)
        made = compare(path, added, seconds, seed, folder)
    return {"schema_version": 1, "kind": kind, "seed": seed, **made, "whole_s": time.monotonic() - began, **about}


if __name__ == "__main__":
    main()
