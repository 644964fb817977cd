"""Hand an engine to LoadGen: its system under test and its library of samples are two pairs of callbacks."""

from __future__ import annotations

import importlib.metadata
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdeploy.bench.inputs import Layout
from kdeploy.bench.loadgen.summary import SUMMARY, LoadgenResult, read_summary
from kdeploy.bench.scenarios import Settings, in_pieces, prepare
from kdeploy.bench.scenarios.base import Run
from kdeploy.bench.warming import no_garbage_collection, warm_up
from kdeploy.errors import UserError, missing_extra, nearest

_DISTRIBUTION = "mlcommons-loadgen"
_SCENARIOS = {
    "single-stream": "SingleStream",
    "multi-stream": "MultiStream",
    "server": "Server",
    "offline": "Offline",
}


_OFFLINE_SLACK = 1.1  # as in LoadGen's own sum


def require() -> Any:
    """The module `mlperf_loadgen`. Raises Unavailable, with the command that installs it, where it is missing."""
    try:
        import mlperf_loadgen
    except ImportError:
        raise missing_extra(_DISTRIBUTION, "loadgen", "--loadgen") from None
    return mlperf_loadgen


def version() -> str:
    """Of mlcommons-loadgen, where it is installed."""
    return importlib.metadata.version(_DISTRIBUTION)


def drive_engine(
    name: str,
    run: Run,
    layout: Layout,
    images: NDArray[np.uint8] | None,
    settings: Settings,
    folder: Path,
    *,
    official: bool = False,
) -> LoadgenResult:
    """As `scenarios.measure_engine`, with LoadGen in place of our own scenario."""
    queries = prepare(name, layout, images, settings)
    return drive(name, in_pieces(run, layout, len(queries[0])), queries, settings, folder, official=official)


def drive(
    name: str,
    run: Run,
    queries: Sequence[NDArray[Any]],
    settings: Settings,
    folder: Path,
    *,
    official: bool = False,
) -> LoadgenResult:
    """Have LoadGen send the queries of a scenario to `run`, after a warm-up, and return its verdict.

    queries: as for `scenarios.run_scenario`, all of one size; their samples become LoadGen's library, of which it
    draws. Its logs go to `folder`, which is made; a summary that lies there is replaced. official: with the seeds and
    limits of the `mlperf.conf` that LoadGen carries, without a model's own. An `audit.config` in the current folder,
    which LoadGen would obey without a word, is left alone.

    Raises Unavailable where LoadGen is not installed, UserError for a scenario that it does not know, for Server
    without a rate (LoadGen is given one; our own scenario finds it), and where the folder can't be written. What `run`
    raises comes back after LoadGen has ended.
    """
    if name not in _SCENARIOS:
        raise UserError(f"LoadGen has no scenario {name!r}.{nearest(name, _SCENARIOS)}")
    if name == "server" and settings.rate is None:
        raise UserError("LoadGen's Server scenario is told a rate: add --rate, for example the one that kdeploy found.")
    loadgen = require()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SUMMARY).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"LoadGen cannot write its logs to {folder}: {error.strerror}.") from None
    with no_garbage_collection():
        typical_ns = warm_up(run, queries, settings.min_time_s).typical_ns
        wanted = _test_settings(loadgen, name, settings, len(queries[0]), typical_ns, official)
        with _room_for_threads() as return_to_cores:
            system = _System(loadgen, run, np.concatenate(queries), len(queries[0]), return_to_cores)
            _start(loadgen, system, wanted, folder)
    if system.error is not None:
        raise system.error
    return read_summary(folder, version())


@contextmanager
def _room_for_threads() -> Iterator[Callable[[], None]]:
    """Threads that LoadGen starts may use whatever cores our parent may, until the function given here is called.

    It brings the calling thread back to its own. Otherwise LoadGen's logging thread would share the one core of an
    engine that was pinned there, and its p90 would be that of both.
    """
    own = os.sched_getaffinity(0)
    with suppress(OSError):  # where nothing may be changed, nothing is
        os.sched_setaffinity(0, own | os.sched_getaffinity(os.getppid()))
    try:
        yield lambda: os.sched_setaffinity(0, own)
    finally:
        os.sched_setaffinity(0, own)


class _System:
    """What LoadGen calls back: it says which samples to load, and then which of them to run."""

    def __init__(
        self, loadgen: Any, run: Run, samples: NDArray[Any], batch: int, before_load: Callable[[], None]
    ) -> None:
        self.error: BaseException | None = None
        """What the engine raised; an exception must not pass through LoadGen's threads."""
        self.count = len(samples)
        self._loadgen, self._run, self._library, self._batch = loadgen, run, samples, batch
        self._before_load = before_load
        self._loaded = samples[:0]
        self._position: dict[int, int] = {}

    def load(self, indices: list[int]) -> None:
        """Lay the samples in the order that LoadGen names, in which its queries of several are contiguous.

        LoadGen has started its threads before, and it is the thread which comes here that issues the queries.
        """
        self._before_load()
        self._loaded = self._library[indices]
        self._position = {index: at for at, index in enumerate(indices)}

    def unload(self, indices: list[int]) -> None:
        self._loaded, self._position = self._library[:0], {}

    def issue(self, ids: list[int], indices: list[int]) -> None:
        """Answer a query: batch after batch, each reported when it is done."""
        response, complete = self._loadgen.QuerySampleResponse, self._loadgen.QuerySamplesComplete
        for at in range(0, len(ids), self._batch):
            if self.error is None:
                try:
                    self._run(self._gather(indices[at : at + self._batch]))
                except BaseException as error:
                    self.error = error
            complete([response(identity, 0, 0) for identity in ids[at : at + self._batch]])

    def flush(self) -> None:
        """Nothing is ever kept back."""

    def _gather(self, indices: list[int]) -> NDArray[Any]:
        """The samples as one array: a view where they lie beside each other, and else a copy."""
        first = self._position[indices[0]]
        if len(indices) == 1:
            return self._loaded[first : first + 1]
        positions = [self._position[index] for index in indices]
        if positions == list(range(first, first + len(indices))):
            return self._loaded[first : first + len(indices)]
        return self._loaded[positions]


def _test_settings(loadgen: Any, name: str, settings: Settings, batch: int, typical_ns: float, official: bool) -> Any:
    """LoadGen's settings; how fast the engine is tells it how many queries to draw beforehand."""
    wanted = loadgen.TestSettings()
    if official:
        wanted.FromConfig("", "*", _SCENARIOS[name], 0)  # 0: the mlperf.conf inside of LoadGen
    wanted.scenario = getattr(loadgen.TestScenario, _SCENARIOS[name])
    wanted.mode = loadgen.TestMode.PerformanceOnly
    wanted.min_duration_ms = round(settings.min_time_s * 1000)
    wanted.min_query_count = settings.min_count
    if not official:
        wanted.qsl_rng_seed = wanted.sample_index_rng_seed = wanted.schedule_rng_seed = settings.seed
    wanted.single_stream_expected_latency_ns = typical_ns
    wanted.multi_stream_expected_latency_ns = typical_ns
    if name == "offline":
        # The count that LoadGen would come to by itself, in whole batches: an engine may take no others.
        calls = _OFFLINE_SLACK * settings.min_time_s * 1e9 / typical_ns
        wanted.offline_expected_qps = batch * 1e9 / typical_ns
        wanted.min_query_count = batch * math.ceil(max(calls, settings.min_count / batch))
    if settings.rate is not None:
        wanted.server_target_qps = settings.rate
    wanted.server_target_latency_ns = round(settings.bound_ms * 1e6)
    return wanted


def _start(loadgen: Any, system: _System, wanted: Any, folder: Path) -> None:
    """Run the test; it returns when the logs are written."""
    output = loadgen.LogOutputSettings()
    output.outdir = str(folder)
    logs = loadgen.LogSettings()
    logs.log_output = output
    logs.enable_trace = False
    sut = loadgen.ConstructFastSUT(system.issue, system.flush)
    library = loadgen.ConstructQSL(system.count, system.count, system.load, system.unload)
    try:
        loadgen.StartTestWithLogSettings(sut, library, wanted, logs, str(folder / "no-audit.config"))
    finally:
        loadgen.DestroyQSL(library)
        loadgen.DestroyFastSUT(sut)
