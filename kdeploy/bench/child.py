"""`python -m kdeploy.bench.child JOB.json`: measures one artefact in a process with nothing else in it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kdeploy import artifacts, engines, events
from kdeploy.bench import pinning
from kdeploy.bench.accuracy import predict, score
from kdeploy.bench.inputs import Layout, inputs_for, layout_of_file, layout_of_manifest
from kdeploy.bench.job import Failure, Job, Outcome
from kdeploy.bench.results import Accuracy, Latency
from kdeploy.bench.timing import latency, measure_calls
from kdeploy.engines.base import Session
from kdeploy.engines.onnxruntime import OnnxRuntime
from kdeploy.errors import KdeployError, UserError
from kdeploy.recipe.schema import BenchSpec

Send = Callable[[dict[str, Any]], None]
Data = dict[str, Any]


def main(job_path: Path) -> None:
    """Do the job and write its outcome; a user's mistake is an outcome too, any other exception is a traceback."""
    job = Job.model_validate(artifacts.read_json(job_path))
    send = _sender()
    with events.listening(_Relay(send)):
        try:
            outcome: Outcome | Failure = measure(job, send)
        except KdeployError as error:
            outcome = Failure(kind=type(error).__name__, message=str(error))
        except MemoryError:
            why = f"Memory ran out while {job.artifact} was measured. Try a smaller batch, or less data."
            outcome = Failure(kind=UserError.__name__, message=why)
    artifacts.write_json(Path(job.outcome), outcome.model_dump(mode="json"))


def measure(job: Job, send: Send) -> Outcome:
    """Open, run once, measure accuracy where there is data, then the latency of each batch size."""
    pinning.check_threads(job.bench.threads)
    pinned = pinning.pin(job.bench.threads)
    session, layout, classes, load_ms = _open(Path(job.artifact), job.bench.threads)
    with session:
        _check_batches(job, layout)
        data = None if job.data is None else _load(Path(job.data), layout, classes)
        parts = _Parts(send, len(job.bench.batch) + (data is not None))
        images = None if data is None else data["images"]
        first_inference_ms = _first_inference(session, inputs_for(layout, layout.batch or 1, images)[0])
        accuracy = None if data is None else _accuracy(session, layout, classes, data, job.split, parts)
        latencies = [
            _latency(session, inputs_for(layout, batch, images), batch, job.bench, parts) for batch in job.bench.batch
        ]
        described = {**session.describe(), "pinned": pinned}
    return Outcome(
        load_ms=load_ms,
        first_inference_ms=first_inference_ms,
        latency=tuple(latencies),
        accuracy=accuracy,
        session=described,
    )


def _open(path: Path, threads: int) -> tuple[Session, Layout, tuple[str, ...], float]:
    """The open session, its input, its classes, and the milliseconds of opening alone.

    The runtime is imported and the files are verified (and so read once) before the clock starts.
    """
    if path.is_dir():
        manifest = engines.read_manifest(path)
        engine = engines.find(manifest.engine)
        engines.require(engine)
        start = time.perf_counter_ns()
        session = engine.open(path, manifest, threads)
        load_ms = (time.perf_counter_ns() - start) / 1e6
        return session, layout_of_manifest(manifest), manifest.classes, load_ms
    runtime = OnnxRuntime()
    engines.require(runtime)
    start = time.perf_counter_ns()
    file_session = runtime.open_file(path, threads)
    load_ms = (time.perf_counter_ns() - start) / 1e6
    return file_session, layout_of_file(file_session, path), (), load_ms


def _check_batches(job: Job, layout: Layout) -> None:
    for batch in job.bench.batch:
        if layout.batch not in (None, batch):
            raise UserError(
                f"{job.artifact} takes batches of {layout.batch} only and can't be measured at batch {batch}. "
                "Export it with an open batch dimension."
            )


def _load(path: Path, layout: Layout, classes: tuple[str, ...]) -> Data:
    with np.load(path) as archive:
        data = {name: archive[name] for name in ("images", "labels")}
    wanted = layout.preprocessing
    if wanted is None:
        raise ValueError("data was given for a file that says nothing of its preprocessing")
    shape = (wanted.height, wanted.width, wanted.channels)
    if data["images"].shape[1:] != shape:
        raise UserError(
            f"The engine takes images of {shape[0]} x {shape[1]} pixels in {shape[2]} channels, but the data has "
            f"{list(data['images'].shape[1:])}. Set data.size, or measure with the data that it was made for."
        )
    if data["labels"].max() >= len(classes):
        raise UserError(f"The data has the label {data['labels'].max()}, but the engine has {len(classes)} classes.")
    return data


def _first_inference(session: Session, images: Any) -> float:
    start = time.perf_counter_ns()
    session.run(images)
    return (time.perf_counter_ns() - start) / 1e6


def _accuracy(
    session: Session, layout: Layout, classes: tuple[str, ...], data: Data, split: str, parts: _Parts
) -> Accuracy:
    with parts.part() as report:
        answers = predict(session.run, layout, data["images"], data["labels"], report)
    return score(answers, classes, split)


def _latency(session: Session, inputs: list[Any], batch: int, spec: BenchSpec, parts: _Parts) -> Latency:
    """Only batch 1 has a least count of its own: 662 calls at batch 32 can take minutes on a small device."""
    min_count = spec.min_count if batch == 1 else 1
    with parts.part() as report:
        samples = measure_calls(session.run, inputs, min_time_s=spec.min_time_s, min_count=min_count, report=report)
    return latency(samples, batch)


class _Parts:
    """Turns the progress of one part after the other into the progress of the whole."""

    def __init__(self, send: Send, total: int) -> None:
        self._send, self._total, self._finished = send, total, 0

    @contextmanager
    def part(self) -> Iterator[Callable[[float], None]]:
        """Yield what a part calls with the share of it that is done."""
        yield lambda share: self._send({"done": (self._finished + share) / self._total})
        self._finished += 1
        self._send({"done": self._finished / self._total})


class _Relay:
    """A listener that sends what the library says to the parent."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def decided(self, what: str, value: str, why: str) -> None:
        self._send({"event": "decided", "arguments": [what, value, why]})

    def warned(self, text: str) -> None:
        self._send({"event": "warn", "arguments": [text]})

    def said(self, text: str) -> None:
        self._send({"event": "say", "arguments": [text]})

    @contextmanager
    def task(self, description: str, total: int | None) -> Iterator[events.Progress]:
        yield self

    def advance(self, steps: int = 1, **figures: float | str) -> None:
        """Bars inside the child are not shown: the parent has one for all of it."""


def _sender() -> Send:
    """Keep standard output for our lines; whatever else a library prints there goes to standard error."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(line: dict[str, Any]) -> None:
        pipe.write(json.dumps(line) + "\n")
        pipe.flush()

    return send


if __name__ == "__main__":
    main(Path(sys.argv[1]))
