"""Prove the engine tensorrt on this machine, with every option that it has: one command for whoever has a Jetson.

    pip install 'kdeploy[onnx,tensorrt]'      (on a Jetson `kdeploy doctor` says what to install instead)
    python benchmarks/tensorrt_check.py

A small network is written as ONNX in float32, float16 and int8, and built both ways (the Python API, and trtexec) where
both are there. Each build is read back by the engine inspector, its answers are compared with ONNX Runtime's, it is
opened, run and timed. What is not to be had here (no DLA, no trtexec) is said and is no failure. Written:
benchmarks/results/tensorrt/<GPU>-<version>.json. The exit status is 1 where a check failed.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tensorrt_network import CLASSES, OPSET, SIDE, WIDTHS, write_network

from kdeploy import artifacts, engines, events, machine
from kdeploy.bench.statistics import percentile_estimate
from kdeploy.bench.timing import latency, measure_calls
from kdeploy.cli.console import Terminal
from kdeploy.engines.base import Manifest, Preprocessing
from kdeploy.engines.onnxruntime import OnnxRuntime
from kdeploy.engines.tensorrt import TensorRT, graph, trtexec
from kdeploy.engines.tensorrt import latency as through_trtexec
from kdeploy.errors import KdeployError, Unavailable, UserError
from kdeploy.provenance import now, revision

RESULTS = Path(__file__).parent / "results" / "tensorrt"
PRECISIONS = ("float32", "float16", "int8")


@dataclass
class Row:
    """One check. outcome: passed, failed, or not here."""

    name: str
    outcome: str = "passed"
    why: str = ""
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)


class Checks:
    def __init__(self, folder: Path, seconds: int) -> None:
        self.folder, self.seconds = folder, seconds
        self.rows: list[Row] = []
        self.models = {precision: write_network(folder, precision) for precision in PRECISIONS}

    @contextmanager
    def check(self, name: str) -> Iterator[Row]:
        """Whatever is raised inside fails this check and none of the others."""
        row, begin = Row(name), time.perf_counter()
        try:
            yield row
        except Unavailable as error:
            row.outcome, row.why = "not here", str(error)
        except KdeployError as error:
            row.outcome, row.why = "failed", str(error)
        except Exception as error:
            row.outcome, row.why = "failed", f"{type(error).__name__}: {error}"
        row.seconds = round(time.perf_counter() - begin, 1)
        self.rows.append(row)
        events.say(f"{row.outcome:8s} {row.name} ({row.seconds} s) {row.why}")

    def build(self, row: Row, precision: str, **options: Any) -> Path:
        target = self.folder / re.sub(r"\W+", "-", row.name)
        details = TensorRT().build(self.models[precision], target, manifest(precision, options)).details
        row.figures |= {name: details[name] for name in ("tensorrt", "machine", "operators", "dla", "check")}
        return target

    def each_precision(self, way: str) -> None:
        """Build, prove, run and time each precision."""
        for precision in PRECISIONS:
            with self.check(f"{way} {precision}") as row:
                built = self.build(row, precision, builder=way)
                if way == "python":
                    row.figures["latency_ms"] = self.timed(built)
                row.figures["trtexec_ms"] = self.timed_by_trtexec(built)

    def each_option(self) -> None:
        """Every option of the Python way, one after the other."""
        for name, options in {
            "cuda graph": {"cuda_graph": True},
            "two profiles": {"profiles": [{"max": 4}, {"min": 1, "opt": 16, "max": 16}]},
            "no weights in the plan": {"strip_weights": True},
            "refittable": {"refit": True},
            "version compatible": {"version_compatible": True},
            "hardware compatible": {"hardware_compatibility": "ampere+"},
            "level 5, little workspace": {"builder_optimization_level": 5, "workspace_mib": 64},
        }.items():
            with self.check(name) as row:
                self.same_answers(self.build(row, "float32", builder="python", **options), row)
        for core in (0, 1):
            with self.check(f"DLA core {core}") as row:
                self.build(row, "float16", builder="python", dla_core=core)

    def the_guards(self) -> None:
        """What must not pass."""
        with self.check("a float32 graph is not built as float16") as row:
            self.models["wrong"] = self.models["float32"]
            self.refused(
                lambda: TensorRT().build(self.models["wrong"], self.folder / "wrong", manifest("float16")), row
            )
        with self.check("a changed plan is not opened") as row:
            plan = self.build(row, "float32") / "model.plan"
            plan.write_bytes(plan.read_bytes()[:-1] + b"\0\0")
            self.refused(lambda: engines.open_engine(plan.parent, threads=1), row)
        with self.check("timings are kept") as row:
            self.build(row, "int8")
            begin = time.perf_counter()
            self.build(row, "int8")
            row.figures["second_build_s"] = time.perf_counter() - begin

    def refused(self, call: Callable[[], object], row: Row) -> None:
        try:
            call()
        except UserError as error:
            row.figures["refused_with"] = str(error)
        else:
            raise AssertionError("it was accepted")

    def same_answers(self, built: Path, row: Row) -> None:
        """Batches of several sizes, against ONNX Runtime; changing back and forth."""
        worst = 0.0
        with (
            engines.open_engine(built, threads=1) as session,
            OnnxRuntime().open_file(self.models["float32"], threads=1) as reference,
        ):
            for count in (1, 4, 1, 3, 3):
                given = images(count, seed=count)
                expected = reference.run(given)
                worst = max(worst, float(np.abs(session.run(given) - expected).max() / np.abs(expected).max()))
        row.figures["relative_difference"] = worst
        if not worst <= 1e-4:
            raise AssertionError(f"answers differ by {worst:.1e} of their scale")

    def timed(self, built: Path) -> dict[str, Any]:
        with engines.open_engine(built, threads=1) as session:
            samples = measure_calls(
                session.run,
                [images(1, seed) for seed in range(8)],
                min_time_s=self.seconds,
                min_count=662,
                report=lambda _: None,
            )
        return latency(samples, 1).model_dump(mode="json", exclude={"samples_ms"})

    def timed_by_trtexec(self, built: Path) -> dict[str, Any]:
        """With copies, without a CUDA graph, waiting for an interrupt: the same in every version."""
        tool = trtexec.find()
        if tool is None:
            return {"not here": "there is no trtexec"}
        taken = graph.read(self.models["float32"]).input
        measured = through_trtexec.measure(tool, built / "model.plan", taken, duration_s=self.seconds)
        ascending = np.sort(np.array(measured.samples_ms))
        p50 = percentile_estimate(ascending, 0.5)
        return {
            **measured.model_dump(mode="json", exclude={"samples_ms"}),
            "count": len(ascending),
            "p50": None if p50 is None else p50.model_dump(mode="json"),
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10, help="how long each latency is measured")
    parser.add_argument("--out", type=Path, help="where the results are written")
    asked = parser.parse_args()
    found = TensorRT().available()
    if not found.ok:
        sys.stderr.write(f"TensorRT can't be used here: {found.reason}. Type: {found.install}\n")
        return Unavailable.exit_status
    python = not (found.version or "").endswith("(trtexec)")
    with tempfile.TemporaryDirectory() as folder, events.listening(Terminal()):
        checks = Checks(Path(folder), asked.seconds)
        if python:
            checks.each_precision("python")
            checks.each_option()
        with checks.check("trtexec is there"):
            trtexec.require()
            checks.each_precision("trtexec")
        checks.the_guards()
    target = asked.out or RESULTS / f"{file_name(checks.rows)}.json"
    artifacts.write_json(
        target,
        {
            "schema_version": 1,
            "command": "python benchmarks/tensorrt_check.py",
            "rows": [asdict(row) for row in checks.rows],
            "measured_at": now(),
            "revision": revision(),
            "machine": machine.fingerprint(),
        },
    )
    failed = [row.name for row in checks.rows if row.outcome == "failed"]
    sys.stderr.write(f"{target}\n{'FAILED: ' + ', '.join(failed) if failed else 'PASSED'}\n")
    return 1 if failed else 0


def file_name(rows: list[Row]) -> str:
    """From the first machine that a build found: orin-10.3.0."""
    known = [row.figures["machine"] for row in rows if "machine" in row.figures]
    text = f"{known[0]['gpu']}-{known[0]['tensorrt']}" if known else "nothing-built"
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def images(count: int, seed: int = 0) -> np.ndarray:
    """float32 `[count, 3, 32, 32]`."""
    return np.random.default_rng(seed).standard_normal((count, WIDTHS[0], SIDE, SIDE)).astype(np.float32)


def manifest(precision: str, options: dict[str, Any] | None = None) -> Manifest:
    """What is known of the network before its engine is built."""
    content = {
        "engine": "tensorrt",
        "precision": precision,
        "model": "",
        "files": {},
        "size_bytes": 0,
        "input_name": "images",
        "input_dtype": "float32",
        "output": "logits",
        "preprocessing": Preprocessing(
            in_graph=False, height=SIDE, width=SIDE, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3
        ),
        "classes": tuple(str(index) for index in range(CLASSES)),
        "parameters": None,
        "macs": None,
        "source": "0" * 64,
        "opset": OPSET,
        "options": options or {},
    }
    return Manifest.model_validate(content)


if __name__ == "__main__":
    sys.exit(main())
