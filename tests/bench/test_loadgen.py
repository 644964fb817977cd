"""LoadGen itself drives an engine, and its summary is read."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kdeploy.bench import loadgen
from kdeploy.bench.inputs import Layout
from kdeploy.bench.scenarios import Settings, names, official
from kdeploy.errors import Unavailable, UserError

QUICK = Settings(min_time_s=0.1, min_count=700, rate=2000.0, bound_ms=1000.0)
LAYOUT = Layout(shape=(3,), dtype=np.dtype(np.float32))

TOO_FEW = """================================================
MLPerf Results Summary
================================================
SUT name : PyFastSUT
Scenario : SingleStream
Mode     : PerformanceOnly
90.0th percentile latency (ns) : 5083000
Result is : INVALID
  Min duration satisfied : NO
  Min queries satisfied : NO
  Early stopping satisfied: NO
Recommendations:
 * Decrease the expected latency so the loadgen pre-generates more queries.
 * The test exited early, before enough queries were issued.
   See the detailed log for why this may have occurred.
Early Stopping Result:
 * Only processed 20 queries.
 * Need to process at least 64 queries for early stopping.

================================================
Additional Stats
================================================
QPS w/ loadgen overhead         : 196.74
QPS w/o loadgen overhead        : 197.05

Min latency (ns)                : 5060000
50.00 percentile latency (ns)   : 5071000
99.90 percentile latency (ns)   : 5190000

================================================
Test Parameters Used
================================================
samples_per_query : 1
min_duration (ms): 600000

No warnings encountered during test.

No errors encountered during test.
"""


class Engine:
    """Adds up; remembers the sizes and the samples it saw."""

    def __init__(self) -> None:
        self.sizes: set[int] = set()
        self.samples: set[float] = set()
        self.whole = True

    def __call__(self, query: NDArray[Any]) -> NDArray[Any]:
        self.sizes.add(len(query))
        self.samples.update(query[:, 0].tolist())
        self.whole = self.whole and query.shape[1:] == (3,) and query.dtype == np.float32
        return query.sum(axis=1)


def queries(size: int) -> list[NDArray[np.float32]]:
    """Four queries; each sample's values are its number."""
    numbers = np.arange(4 * size, dtype=np.float32).reshape(4, size, 1)
    return [np.ascontiguousarray(np.repeat(query, 3, axis=1)) for query in numbers]


@pytest.mark.parametrize(
    ("name", "size", "theirs", "metric", "unit"),
    [
        ("single-stream", 1, "SingleStream", "p90 latency", "ms"),
        ("multi-stream", 8, "MultiStream", "p99 latency of 8 samples", "ms"),
        ("server", 1, "Server", "answers", "queries/s"),
        ("offline", 4, "Offline", "throughput", "samples/s"),
    ],
)
def test_loadgen_drives_every_scenario(
    tmp_path: Path, name: str, size: int, theirs: str, metric: str, unit: str
) -> None:
    engine = Engine()
    settings = QUICK.model_copy(update={"batch": size})
    found = loadgen.drive(name, engine, queries(size), settings, tmp_path / "logs")
    assert engine.sizes == {size}
    assert engine.whole
    assert engine.samples == set(range(4 * size))
    assert (found.scenario, found.metric, found.unit) == (theirs, metric, unit)
    assert found.value is not None
    assert found.value > 0
    assert found.valid
    assert set(found.constraints) >= {"Min duration", "Min queries", "Early stopping"}
    assert found.loadgen == importlib.metadata.version("mlcommons-loadgen")
    assert found.parameters["min_duration (ms)"] == "100"
    assert {"50.00", "99.90"} <= set(found.percentiles_ms)
    logs = {path.name for path in (tmp_path / "logs").iterdir()}
    assert {"mlperf_log_summary.txt", "mlperf_log_detail.txt"} <= logs
    assert loadgen.LoadgenResult.model_validate_json(found.model_dump_json()) == found


def test_every_scenario_of_ours_has_loadgens() -> None:
    assert set(names()) == {"single-stream", "multi-stream", "server", "offline"}


def test_an_official_run_has_the_seeds_of_mlperf_conf(tmp_path: Path) -> None:
    assert official("multi-stream", QUICK).min_time_s == 600
    found = loadgen.drive("multi-stream", Engine(), queries(8), QUICK, tmp_path, official=True)
    assert found.parameters["qsl_rng_seed"] not in ("0", "")
    assert found.parameters["samples_per_query"] == "8"
    assert found.parameters["min_duration (ms)"] == "100"


def test_a_stray_audit_config_is_not_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "audit.config").write_text("*.*.mode = 1\n*.SingleStream.performance_issue_same = 1\n")
    monkeypatch.chdir(tmp_path)
    engine = Engine()
    found = loadgen.drive("single-stream", engine, queries(1), QUICK, tmp_path / "logs")
    assert found.parameters["performance_issue_same"] == "0"
    assert len(engine.samples) == 4


def test_server_keeps_the_rate_and_the_bound(tmp_path: Path) -> None:
    settings = Settings(min_time_s=0.4, min_count=100, rate=500.0, bound_ms=1e-6)
    found = loadgen.drive("server", Engine(), queries(1), settings, tmp_path)
    assert not found.valid
    assert found.constraints["Performance constraints"] is False
    assert found.recommendations == ("Reduce target QPS to improve latency.",)
    assert found.value == pytest.approx(500, rel=0.3)


def test_an_open_engine_of_one_batch_size_is_driven_in_pieces(tmp_path: Path) -> None:
    engine = Engine()
    fixed = Layout(LAYOUT.shape, LAYOUT.dtype, batch=2)
    assert loadgen.drive_engine("multi-stream", engine, fixed, None, QUICK, tmp_path).valid
    assert engine.sizes == {2}


def test_what_the_engine_raises_comes_back(tmp_path: Path) -> None:
    calls = 0

    def run(query: NDArray[Any]) -> NDArray[Any]:
        nonlocal calls
        calls += 1
        if calls == 20_000:
            raise RuntimeError("broken engine")
        return query

    with pytest.raises(RuntimeError, match="broken engine"):
        loadgen.drive("single-stream", run, queries(1), Settings(min_time_s=0.1, min_count=21_000), tmp_path)
    assert calls == 20_000
    assert loadgen.drive("single-stream", Engine(), queries(1), QUICK, tmp_path).valid


def test_the_summary_of_an_invalid_run(tmp_path: Path) -> None:
    (tmp_path / "mlperf_log_summary.txt").write_text(TOO_FEW)
    found = loadgen.read_summary(tmp_path, "6.0.17")
    assert (found.valid, found.value) == (False, None)
    assert found.constraints == {"Min duration": False, "Min queries": False, "Early stopping": False}
    assert found.recommendations == (
        "Decrease the expected latency so the loadgen pre-generates more queries.",
        "The test exited early, before enough queries were issued. "
        "See the detailed log for why this may have occurred.",
    )
    assert found.percentiles_ms == {"50.00": 5.071, "99.90": 5.19}
    assert found.parameters == {"samples_per_query": "1", "min_duration (ms)": "600000"}


def test_a_summary_in_words_that_we_do_not_know_is_an_error(tmp_path: Path) -> None:
    text = TOO_FEW.replace("Early stopping satisfied: NO", "Early stopping satisfied: Yes")
    (tmp_path / "mlperf_log_summary.txt").write_text(text)
    with pytest.raises(UserError, match="does not give the p90 latency as LoadGen 5 and 6 do"):
        loadgen.read_summary(tmp_path, "7.0")


@pytest.mark.parametrize("percentile", ["90th", "90.0th"])
def test_the_early_stopping_estimate_of_old_and_new_summaries(tmp_path: Path, percentile: str) -> None:
    estimate = f"satisfied: Yes\nEarly Stopping Result:\n * Early stopping {percentile} percentile estimate: 5083000\n"
    (tmp_path / "mlperf_log_summary.txt").write_text(TOO_FEW.replace("satisfied: NO\n", estimate))
    assert loadgen.read_summary(tmp_path, "6.0.17").value == pytest.approx(5.083)


def test_a_summary_cut_short_and_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"left no summary at .*mlperf_log_summary\.txt"):
        loadgen.read_summary(tmp_path, "6.0.17")
    (tmp_path / "mlperf_log_summary.txt").write_text(TOO_FEW[:200])
    with pytest.raises(UserError, match="has no verdict: LoadGen was ended before its test was over"):
        loadgen.read_summary(tmp_path, "6.0.17")


def test_without_loadgen_it_says_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)  # import raises ImportError
    with pytest.raises(Unavailable, match=r"mlcommons-loadgen, which is .* Type: pip install 'kdeploy\[loadgen\]'$"):
        loadgen.drive("single-stream", Engine(), queries(1), QUICK, tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


def test_what_cannot_be_asked_of_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"LoadGen has no scenario 'ofline'\. Did you mean 'offline'\?"):
        loadgen.drive("ofline", Engine(), queries(1), QUICK, tmp_path)
    with pytest.raises(UserError, match="told a rate: add --rate"):
        loadgen.drive("server", Engine(), queries(1), Settings(), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"LoadGen cannot write its logs to .*file"):
        loadgen.drive("single-stream", Engine(), queries(1), QUICK, tmp_path / "file")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core here")
def test_its_threads_leave_the_engine_its_core(tmp_path):
    before = os.sched_getaffinity(0)
    seen: set[tuple[int, ...]] = set()
    others: set[tuple[int, ...]] = set()

    def run(images):
        seen.add(tuple(sorted(os.sched_getaffinity(0))))
        for thread in Path("/proc/self/task").iterdir():
            try:
                others.add(tuple(sorted(os.sched_getaffinity(int(thread.name)))))
            except ProcessLookupError:  # it has just ended
                continue

    alone = {max(before)}
    try:
        os.sched_setaffinity(0, alone)
        loadgen.drive("single-stream", run, [np.zeros((1, 3), np.float32)] * 4, QUICK, tmp_path)
        assert os.sched_getaffinity(0) == alone
    finally:
        os.sched_setaffinity(0, before)
    assert seen == {tuple(alone)}
    assert any(set(cores) > alone for cores in others)
