"""Profiles by layer: what is computed from times, and real ones of each kind of artefact, from a process of its own."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from kdeploy import bundle, engines
from kdeploy.bench import profiling_child
from kdeploy.bench.artifacts import Artifact
from kdeploy.bench.layers import LayerProfile, by_operator, longest_first
from kdeploy.bench.profiling import ProfilingJob, module_of, profile, profile_all, summarise, timing
from kdeploy.engines.base import LayerTimes, Profile
from kdeploy.errors import Unavailable, UserError
from tests.engines import models

JOB = ProfilingJob(name="row", artifact="/engine", threads=1, batch=None, calls=8, outcome="")


def layer(name: str, time_us: float, operator: str = "Conv", calls: int = 8) -> LayerTimes:
    return LayerTimes(name, operator, "float32", "CPU", (time_us,) * calls, ("other",))


def told(*layers: LayerTimes, profiled_us: float | None = 100.0, plain_us: float = 80.0, **more: object) -> Profile:
    known = {"profiler": "a profiler", "calls": 8, "layers": layers, "plain_us": (plain_us,) * 8} | more
    return Profile(**known, profiled_us=() if profiled_us is None else (profiled_us,) * 8)  # type: ignore[arg-type]


def summarised(found: Profile, *, exported: bool = True) -> LayerProfile:
    return summarise(found, JOB, engine="onnxruntime", precision="int8", variant="", batch=1, exported=exported)


def test_shares_are_of_the_sum_and_the_rest_is_of_the_call() -> None:
    found = summarised(told(layer("a/Conv", 60.0), layer("b/Relu", 20.0)))
    assert [one.share for one in found.layers] == [0.75, 0.25]
    assert [one.module for one in found.layers] == ["a", "b"]
    assert (found.sum_us, found.unaccounted_us, found.slowdown) == (80.0, 20.0, 1.25)
    first = found.layers[0]
    assert (first.median_us, first.low_us, first.high_us, first.count) == (60.0, 60.0, 60.0, 8)
    assert first.fused == ("other",)
    assert LayerProfile.model_validate(json.loads(found.model_dump_json())) == found


def test_a_graph_of_others_tells_no_modules() -> None:
    assert [one.module for one in summarised(told(layer("a/Conv", 6.0)), exported=False).layers] == [""]


def test_what_a_profiler_does_not_tell_stays_untold() -> None:
    """As trtexec, with one median a layer."""
    found = summarised(told(layer("a/Conv", 60.0, calls=1), profiled_us=None, grouped=8))
    assert (found.profiled, found.unaccounted_us, found.slowdown) == (None, None, None)
    assert found.plain.median_us == 80.0
    first = found.layers[0]
    assert (first.median_us, first.low_us, first.high_us, first.count) == (60.0, None, None, 8)


def test_layers_side_by_side_leave_less_than_nothing() -> None:
    assert summarised(told(layer("a", 70.0), layer("b", 60.0))).unaccounted_us == -30.0


def test_a_profile_without_times_is_an_error() -> None:
    with pytest.raises(UserError, match=r"^/engine can't be profiled: a profiler told no layer's time\.$"):
        summarised(told())
    with pytest.raises(UserError, match="told no layer's time"):
        summarised(told(layer("a", 0.0)))


@pytest.mark.parametrize("true_us", [0.3, 2.4, 2.5, 7.9, 150.2])
def test_times_that_were_cut_off_are_not_taken_for_whole(true_us: float) -> None:
    """The plain median of such times is up to a whole step too low."""
    times = np.random.default_rng(0).normal(true_us, max(0.5, 0.01 * true_us), 400).clip(0)
    found = timing(np.floor(times).tolist(), 1.0)
    assert abs(found.median_us - float(np.median(times))) < 0.3
    assert found.low_us is not None
    assert found.high_us is not None
    assert found.low_us <= found.median_us <= found.high_us
    assert found.low_us <= np.median(times) <= found.high_us


def test_an_interval_takes_eight_times() -> None:
    assert timing([1.0] * 7).low_us is None
    few = timing(list(range(8)))
    assert (few.median_us, few.low_us, few.high_us) == (3.5, 0.0, 7.0)


def test_operators_come_together_longest_first() -> None:
    found = summarised(told(layer("a", 10.0), layer("b", 30.0, "Gemm"), layer("c", 40.0), layer("d", 20.0, "Add")))
    together = [(one.operator, one.layers, one.total_us, one.share) for one in by_operator(found.layers)]
    assert together == [("Conv", 2, 50.0, 0.5), ("Gemm", 1, 30.0, 0.3), ("Add", 1, 20.0, 0.2)]
    shown, others = longest_first(found.layers, 3)
    assert [one.name for one in shown] == ["c", "b", "d"]
    assert [one.name for one in others] == ["a"]


@pytest.mark.parametrize(
    ("node", "module"),
    [
        ("network.layer1.0.conv1/Conv", "network.layer1.0.conv1"),
        ("network.layer1.0/Relu_2", "network.layer1.0"),
        ("Softmax", ""),
        ("/layer1/layer1.0/conv1/Conv", ""),
        ("network.conv1/Conv/WithoutBiases", ""),
        ("relu_nchwc", ""),
    ],
)
def test_the_module_is_in_the_nodes_name(node: str, module: str) -> None:
    assert module_of(node) == module


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go, so that leftovers are seen."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def built(folder: Path) -> Path:
    """An engine folder of two convolutions."""
    folder.mkdir()
    source = models.save_convolutions(folder.parent / "source.onnx")
    engines.find("onnxruntime").build(source, folder, models.manifest(in_graph=False))
    return folder


def test_an_engine_folder_is_profiled_in_a_process_of_its_own(tmp_path: Path, temporary: Path) -> None:
    found = profile(built(tmp_path / "engine"), name="student-onnxruntime-float32", batch=2, calls=12)
    assert (found.name, found.engine, found.precision) == ("student-onnxruntime-float32", "onnxruntime", "float32")
    assert (found.batch, found.threads, found.calls, found.grouped) == (2, 1, 12, 1)
    assert {one.module for one in found.layers} >= {"network.conv1", "network.conv2", "network.fc"}
    assert sum(one.share for one in found.layers) == pytest.approx(1)
    assert found.profiled is not None
    assert found.unaccounted_us == pytest.approx(found.profiled.median_us - found.sum_us)
    assert found.machine["processor"]
    assert list(temporary.iterdir()) == []


def test_a_bundle_is_profiled(tmp_path: Path, temporary: Path) -> None:
    packed = tmp_path / "model.kdz"
    bundle.pack(built(tmp_path / "engine"), packed, name="model", provenance={})
    assert {one.module for one in profile(packed, name="bundle", calls=8).layers} > {"network.conv1"}
    assert list(temporary.iterdir()) == []


def test_what_tells_no_layers_is_left_out_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = summarised(told(layer("a/Conv", 60.0)))

    def answer(path: Path, **_: object) -> LayerProfile:
        if path.name == "pytorch":
            raise UserError("The engine pytorch tells no times.")
        return expected

    monkeypatch.setattr("kdeploy.bench.profiling.profile", answer)
    baseline, engine = (Artifact(name, "student", tmp_path / name) for name in ("pytorch", "onnxruntime"))
    assert profile_all([baseline, engine]) == (expected,)
    assert "The engine pytorch tells no times." in caplog.text
    with pytest.raises(UserError, match="The engine pytorch tells no times"):
        profile_all([baseline])


def test_a_damaged_engine_is_named(tmp_path: Path, temporary: Path) -> None:
    folder = built(tmp_path / "engine")
    content = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(content[:-8])
    with pytest.raises(UserError, match=r"model\.onnx of the engine .* is not the one that was built"):
        profile(folder, name="row", calls=8)
    assert list(temporary.iterdir()) == []


def job(path: Path, **changes: object) -> ProfilingJob:
    return JOB.model_copy(update={"artifact": str(path), **changes})


@pytest.fixture
def unpinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child's work in this process leaves its cores alone."""
    monkeypatch.setattr(profiling_child.pinning, "pin", lambda threads: {"cores": None})


@pytest.mark.usefixtures("unpinned")
def test_a_file_of_others_is_profiled_at_its_own_batch(tmp_path: Path) -> None:
    source = models.save_convolutions(tmp_path / "fixed.onnx", batch=4)
    found = profiling_child.profile(job(source), lambda line: None)
    assert (found.engine, found.precision, found.batch) == ("onnxruntime", "not stated", 4)
    assert {one.module for one in found.layers} == {""}
    assert "network.conv2/Conv" in {one.name for one in found.layers}


@pytest.mark.usefixtures("unpinned")
def test_a_cut_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    source = models.save_convolutions(tmp_path / "source.onnx")
    source.write_bytes(source.read_bytes()[:300])
    with pytest.raises(UserError, match=r"^ONNX Runtime \S+ can't open .*source\.onnx: [^\n]+\.$"):
        profiling_child.profile(job(source), lambda line: None)


@pytest.mark.usefixtures("unpinned")
def test_a_runtime_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = built(tmp_path / "engine")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(Unavailable, match="The engine onnxruntime can't be used here: Python can't import onnxruntime"):
        profiling_child.profile(job(folder), lambda line: None)


@pytest.mark.usefixtures("unpinned")
def test_a_batch_that_a_file_does_not_take_is_refused(tmp_path: Path) -> None:
    source = models.save_convolutions(tmp_path / "fixed.onnx", batch=4)
    with pytest.raises(UserError, match=r"fixed\.onnx takes batches of 4 only and can't be profiled at batch 2"):
        profiling_child.profile(job(source, batch=2), lambda line: None)


def test_more_threads_than_cores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="threads is 4096"):
        profiling_child.profile(job(tmp_path, threads=4096), lambda line: None)
