"""`python -m kdeploy.bench.child JOB.json`: measures one artefact in a process with nothing else in it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kdeploy import artifacts, events
from kdeploy.bench import pinning, scenarios
from kdeploy.bench.accuracy import data_sha256, predict, score
from kdeploy.bench.inputs import Layout, inputs_for
from kdeploy.bench.job import Job, Outcome
from kdeploy.bench.loadgen import LoadgenResult, drive_engine
from kdeploy.bench.opening import open_artifact
from kdeploy.bench.results import Accuracy, Latency, Watched
from kdeploy.bench.scenarios import Audited
from kdeploy.bench.spans import spans
from kdeploy.bench.statistics import early_stopping_min_count
from kdeploy.bench.telling import Send, told
from kdeploy.bench.timing import latency, measure_calls
from kdeploy.bench.watching import Watch
from kdeploy.engines.base import Session
from kdeploy.errors import UserError
from kdeploy.recipe.schema import BenchSpec

Data = dict[str, Any]


def main(job_path: Path) -> None:
    """Do the job and write its outcome."""
    job = Job.model_validate(artifacts.read_json(job_path))
    told(Path(job.outcome), job.artifact, lambda send: measure(job, send))


def measure(job: Job, send: Send) -> Outcome:
    """Open, run once, measure accuracy where there is data, then the latency of each batch size.

    On an emulated processor nothing is timed: each batch size is run once.
    """
    pinning.check_threads(job.bench.threads)
    pinned = pinning.pin(job.bench.threads)
    session, layout, classes, load_ms = open_artifact(Path(job.artifact), job.bench.threads)
    with session:
        batches = _batches(job, layout)
        data = None if job.data is None else _load(Path(job.data), layout, classes)
        if job.emulated:
            return _untimed(job, session, layout, classes, batches, data, send)
        asked = 0 if job.scenarios is None else len(job.scenarios.names)
        parts = _Parts(send, len(batches) + (data is not None) + asked)
        images = None if data is None else data["images"]
        first_inference_ms = _first_inference(session, inputs_for(layout, layout.batch or 1, images)[0])
        accuracy = None if data is None else _accuracy(session, layout, classes, data, job.split, parts)
        latencies = [
            _latency(session, inputs_for(layout, batch, images), batch, job.bench, Watch(pinned["cores"]), parts)
            for batch in batches
        ]
        parted = spans(session, layout, images, job.bench.min_time_s)
        audited, loadgen, watched = _scenarios(session, layout, images, job, pinned["cores"], parts)
        described = {**session.describe(), "pinned": pinned}
    return Outcome(
        load_ms=load_ms,
        first_inference_ms=first_inference_ms,
        latency=tuple(latencies),
        spans=parted,
        accuracy=accuracy,
        scenarios=tuple(audited),
        scenarios_watched=tuple(watched),
        loadgen=tuple(loadgen),
        session=described,
    )


def _untimed(
    job: Job,
    session: Session,
    layout: Layout,
    classes: tuple[str, ...],
    batches: Sequence[int],
    data: Data | None,
    send: Send,
) -> Outcome:
    """That it runs, and how accurate it is."""
    parts = _Parts(send, 1)
    for batch in batches:
        session.run(inputs_for(layout, batch, None, kinds=1)[0])
    return Outcome(
        load_ms=None,
        first_inference_ms=None,
        latency=(),
        spans=None,
        accuracy=None if data is None else _accuracy(session, layout, classes, data, job.split, parts),
        scenarios=(),
        scenarios_watched=(),
        loadgen=(),
        session=session.describe(),
    )


def _batches(job: Job, layout: Layout) -> list[int]:
    """Those to measure: of a file that takes one size alone, that one in place of the 1 that nobody had to ask for."""
    only = layout.batch
    if only is None:
        return list(job.bench.batch)
    for batch in job.bench.batch:
        if batch not in (1, only):
            raise UserError(
                f"{job.artifact} takes batches of {only} only and can't be measured at batch {batch}. "
                "Export it with an open batch dimension."
            )
    if only != 1:
        events.decided("batch", only, f"{Path(job.artifact).name} takes no other")
    return [only]


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
    return score(answers, classes, split, data_sha256(data["images"], data["labels"]))


def _latency(session: Session, inputs: list[Any], batch: int, spec: BenchSpec, watch: Watch, parts: _Parts) -> Latency:
    """Larger batches need fewer calls, as many as p90 wants: 662 at batch 32 can take minutes on a small device."""
    min_count = spec.min_count if batch == 1 else min(spec.min_count, early_stopping_min_count(0.90))
    with parts.part() as report:
        samples = measure_calls(
            session.run, inputs, min_time_s=spec.min_time_s, min_count=min_count, report=report, watch=watch
        )
        watched = watch.end()
    return latency(samples, batch, watched)


def _scenarios(
    session: Session, layout: Layout, images: Any, job: Job, cores: list[int] | None, parts: _Parts
) -> tuple[list[Audited], list[LoadgenResult], list[Watched]]:
    """Ours, and after each, where it is asked for, LoadGen's; it takes the rate of Server that ours has found.

    With the machine meanwhile, of ours, accuracy run and warm-up among it.
    """
    found: list[Audited] = []
    loadgen: list[LoadgenResult] = []
    watched: list[Watched] = []
    if job.scenarios is None:
        return found, loadgen, watched
    for name in job.scenarios.names:
        settings = job.scenarios.settings
        watch = Watch(cores)
        with parts.part() as report:
            wanted = scenarios.official(name, settings) if job.scenarios.mlperf else settings
            watch.begin()
            found.append(scenarios.measure_engine(name, session.run, layout, images, wanted, _looking(watch, report)))
            watched.append(watch.end())
        if job.scenarios.loadgen is not None:
            rated = wanted.model_copy(update={"rate": wanted.rate or found[-1].result.rate})
            folder = Path(job.scenarios.loadgen) / name
            loadgen.append(
                drive_engine(name, session.run, layout, images, rated, folder, official=job.scenarios.mlperf)
            )
    return found, loadgen, watched


def _looking(watch: Watch, report: Callable[[float], None]) -> Callable[[float], None]:
    """`report`, and a look at the clock."""

    def both(share: float) -> None:
        report(share)
        watch.look()

    return both


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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
