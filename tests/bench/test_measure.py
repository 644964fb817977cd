from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdeploy import bundle, events
from kdeploy.artifacts import sha256_file
from kdeploy.bench import measure as measuring
from kdeploy.bench import scenarios
from kdeploy.bench.energy.base import Found, Meter
from kdeploy.bench.interleaving import interleave
from kdeploy.bench.job import ScenariosAsked
from kdeploy.bench.measure import measure
from kdeploy.bench.profiling import profile
from kdeploy.bench.results import Measurement
from kdeploy.bench.verdict import judge
from kdeploy.errors import KdeployError, Unavailable, UserError
from kdeploy.machine import host
from kdeploy.recipe.schema import BenchSpec
from kdeploy.sources.base import ImageSet
from tests.engines import models

QUICK = BenchSpec(batch=(1,), min_time_s=0.02, min_count=64)


def labelled(count: int = 400) -> ImageSet:
    """Labels of which the classifier gets most right, and some wrong."""
    images = models.images(count)
    labels = models.probabilities(images).argmax(axis=1)
    labels[::7] = (labels[::7] + 1) % 3
    return ImageSet(images, labels, models.CLASSES)


def save_product(path: Path, columns: int) -> Path:
    """1024 numbers times a matrix of `columns` columns."""
    matrix = np.random.default_rng(0).standard_normal((1024, columns)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "matrix"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1024])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", columns])],
        [numpy_helper.from_array(matrix, "matrix")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def save_reshape(path: Path) -> None:
    """It says that it takes any batch, and can compute one of 1 alone."""
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        "reshape",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(np.array([1, 4]), "shape")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> str:
    """This machine is said to be emulated."""
    monkeypatch.setattr(host, "emulated", lambda: "qemu-aarch64-static")
    return "qemu-aarch64-static"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go, so that leftovers are seen."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


@pytest.mark.parametrize("in_graph", [True, False])
def test_accuracy_is_the_engines_own_and_equals_numpys(tmp_path: Path, temporary: Path, in_graph: bool) -> None:
    folder = models.build(tmp_path / "engine", in_graph=in_graph)
    data = labelled()
    found = measure(folder, name="row", role="student", spec=QUICK, data=data, split="validation")
    expected = models.probabilities(data.images).argmax(axis=1)
    assert found.accuracy is not None
    assert found.accuracy.predictions == tuple(expected)
    assert found.accuracy.correct == int((expected == data.labels).sum()) == 400 - 58
    assert found.accuracy.split == "validation"
    assert list(temporary.iterdir()) == []


def test_a_measurement_is_whole(tmp_path: Path) -> None:
    folder = models.build(tmp_path / "engine")
    spec = BenchSpec(batch=(1, 4), min_time_s=0.02, min_count=700)
    found = measure(folder, name="row", role="student", spec=spec, data=None)
    assert (found.name, found.role, found.engine, found.precision) == ("row", "student", "onnxruntime", "float32")
    assert found.artifact == sha256_file(folder / "model.onnx")
    assert found.size_bytes == (folder / "model.onnx").stat().st_size
    assert (found.parameters, found.macs, found.threads, found.accuracy) == (192, 192, 1, None)
    assert found.load_ms > 0
    assert found.first_inference_ms > 0
    assert [latency.batch for latency in found.latency] == [1, 4]
    assert found.latency[0].count == len(found.latency[0].samples_ms) >= 700
    assert found.latency[0].p99 is not None
    assert found.session["onnxruntime"] == onnxruntime.__version__
    assert len(found.session["pinned"]["cores"]) == 1
    assert found.machine["architecture"] == os.uname().machine
    assert Measurement.model_validate_json(found.model_dump_json()) == found


def test_a_fresh_process_says_how_long_a_cold_start_takes_and_what_memory(tmp_path: Path) -> None:
    ballast = bytearray(256 << 20)  # of ours: what a child takes must not be counted from it
    found = measure(models.build(tmp_path / "engine"), name="row", role="student", spec=QUICK, data=None)
    assert found.cold_start_ms is not None
    assert found.cold_start_ms > found.load_ms + found.first_inference_ms
    assert found.memory is not None
    assert 10 << 20 < found.memory.runtime_bytes < len(ballast)
    assert found.memory.runtime_bytes < found.memory.peak_bytes < len(ballast)


def test_the_memory_is_that_of_the_network(tmp_path: Path) -> None:
    """Eight million weights more are 32 MB more."""
    small = measure(save_product(tmp_path / "small.onnx", 64), name="s", role="file", spec=QUICK, data=None)
    large = measure(save_product(tmp_path / "large.onnx", 8192), name="l", role="file", spec=QUICK, data=None)
    assert small.memory is not None
    assert large.memory is not None
    assert large.memory.peak_bytes - small.memory.peak_bytes > 8_000_000 * 4


def test_every_measurement_has_a_verdict_and_what_it_rests_on(tmp_path: Path) -> None:
    spec = BenchSpec(batch=(1, 2), min_time_s=0.02, min_count=64)
    found = measure(models.build(tmp_path / "engine"), name="row", role="student", spec=spec, data=None)
    assert found.verdict == judge(found)
    assert [latency.count >= 64 for latency in found.latency] == [True, True]
    for latency in found.latency:
        assert latency.watched is not None
        assert latency.watched.after.at_s - latency.watched.before.at_s >= latency.duration_s
        assert latency.watched.after.own_s > latency.watched.before.own_s


def test_the_parent_is_not_pinned(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    measure(models.build(tmp_path / "engine"), name="row", role="file", spec=QUICK, data=None)
    assert os.sched_getaffinity(0) == before


def test_somebody_elses_onnx_file_is_measured_with_noise(tmp_path: Path) -> None:
    path = models.save_classifier(tmp_path / "network.onnx", in_graph=False, batch=1)
    found = measure(path, name="network", role="file", spec=QUICK, data=None)
    assert (found.engine, found.precision, found.accuracy, found.macs) == ("onnxruntime", "not stated", None, None)
    assert found.artifact == sha256_file(path)
    assert found.size_bytes == path.stat().st_size
    assert found.latency[0].count >= 64


def test_a_bundle_is_measured_as_its_engine(tmp_path: Path, temporary: Path) -> None:
    folder = models.build(tmp_path / "engine")
    bundle.pack(folder, tmp_path / "shipped.kdz", name="shipped", provenance={})
    found = measure(tmp_path / "shipped.kdz", name="shipped", role="file", spec=QUICK, data=labelled(20))
    assert found.artifact == sha256_file(folder / "model.onnx")
    assert found.accuracy is not None
    assert list(temporary.iterdir()) == []


def test_a_batch_that_the_file_does_not_take_is_refused(tmp_path: Path) -> None:
    path = models.save_classifier(tmp_path / "network.onnx", batch=1)
    spec = BenchSpec(batch=(1, 8), min_time_s=0.02)
    with pytest.raises(UserError, match="takes batches of 1 only and can't be measured at batch 8"):
        measure(path, name="network", role="file", spec=spec, data=None)


def test_a_file_of_one_batch_size_is_measured_at_that(tmp_path: Path) -> None:
    path = models.save_classifier(tmp_path / "eight.onnx", batch=8)
    for asked in ((1,), (1, 8)):
        spec = BenchSpec(batch=asked, min_time_s=0.02)
        found = measure(path, name="eight", role="file", spec=spec, data=None)
        assert [latency.batch for latency in found.latency] == [8]


def test_weights_beside_a_file_count(tmp_path: Path) -> None:
    whole = models.save_classifier(tmp_path / "one.onnx")
    onnx.save(onnx.load(whole), tmp_path / "two.onnx", save_as_external_data=True, location="w", size_threshold=0)
    found = measure(tmp_path / "two.onnx", name="two", role="file", spec=QUICK, data=None)
    assert found.size_bytes == (tmp_path / "two.onnx").stat().st_size + (tmp_path / "w").stat().st_size
    assert found.compressed_bytes is not None
    assert 0 < found.compressed_bytes < found.size_bytes + 64


def test_data_of_another_shape_is_refused(tmp_path: Path) -> None:
    folder = models.build(tmp_path / "engine")
    data = ImageSet(np.zeros((4, 9, 8, 1), np.uint8), np.zeros(4, np.int64), models.CLASSES)
    with pytest.raises(UserError, match=r"takes images of 8 x 8 pixels in 1 channels, but the data has \[9, 8, 1\]"):
        measure(folder, name="row", role="file", spec=QUICK, data=data)


def test_data_with_more_classes_is_refused(tmp_path: Path) -> None:
    data = ImageSet(models.images(2), np.array([0, 3]), ("a", "b", "c", "d"))
    with pytest.raises(UserError, match="label 3, but the engine has 3 classes"):
        measure(models.build(tmp_path / "engine"), name="row", role="file", spec=QUICK, data=data)


def test_errors_of_the_child_come_back_as_their_own_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = models.save_classifier(tmp_path / "network.onnx")
    (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:300])
    with pytest.raises(UserError, match=r"can't open .*cut\.onnx"):
        measure(tmp_path / "cut.onnx", name="cut", role="file", spec=QUICK, data=None)
    (tmp_path / "shadow" / "onnxruntime").mkdir(parents=True)
    (tmp_path / "shadow" / "onnxruntime" / "__init__.py").write_text("raise ImportError('no runtime here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "shadow"))
    with pytest.raises(Unavailable, match=r"no runtime here.* Type: pip install .*onnxruntime") as caught:
        measure(path, name="network", role="file", spec=QUICK, data=None)
    assert caught.value.exit_status == 5


class KillTheChild:
    """A listener that kills the measuring child as soon as its bar moves."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    @contextmanager
    def task(self, description: str, total: int | None) -> Iterator[KillTheChild]:
        yield self

    def advance(self, steps: int = 1, **figures: float | str) -> None:
        for child in _children():
            os.kill(child, self.number)

    def decided(self, what: str, value: str, why: str) -> None: ...
    def warned(self, text: str) -> None: ...
    def said(self, text: str) -> None: ...


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


@pytest.mark.parametrize(
    ("number", "message"),
    [(signal.SIGKILL, "SIGKILL: memory most likely ran out"), (signal.SIGSEGV, "SIGSEGV: the runtime crashed")],
)
def test_a_killed_child_is_an_error_that_names_the_signal(
    tmp_path: Path, temporary: Path, number: signal.Signals, message: str
) -> None:
    folder = models.build(tmp_path / "engine")
    spec = BenchSpec(min_time_s=20)
    with events.listening(KillTheChild(number)), pytest.raises(KdeployError, match=message):
        measure(folder, name="row", role="file", spec=spec, data=labelled(20))
    assert _children() == []
    assert list(temporary.iterdir()) == []


def test_ctrl_c_ends_the_child_and_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    path = models.save_classifier(tmp_path / "network.onnx")
    program = f"""
from pathlib import Path
from kdeploy.bench import measure as measuring
from kdeploy.bench.energy.base import Found, Meter
from kdeploy.bench.measure import measure
from kdeploy.recipe.schema import BenchSpec
measure(Path({str(path)!r}), name="n", role="file", spec=BenchSpec(min_time_s=60), data=None)
"""
    environment = {**os.environ, "TMPDIR": str(temporary)}
    parent = subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE, text=True)
    listing = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    deadline = time.monotonic() + 20
    while not (children := listing.read_text().split()) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    parent.send_signal(signal.SIGINT)
    _, stderr = parent.communicate(timeout=10)
    assert "KeyboardInterrupt" in stderr
    assert children
    assert not Path(f"/proc/{children[0]}").exists()
    assert list(temporary.iterdir()) == []


def test_the_parent_sleeps(tmp_path: Path) -> None:
    folder = models.build(tmp_path / "engine")
    spec = BenchSpec(min_time_s=1.0, min_count=1)
    before = time.process_time()
    measure(folder, name="row", role="file", spec=spec, data=None)
    assert time.process_time() - before < 0.5  # of more than two seconds; most of it is reading the samples


class Steady(Meter):
    """Five watts."""

    name, scope, covers, unit = "steady", "wall", "all of it", "joules"

    def read(self) -> float:
        return 5 * time.monotonic()


def test_energy_is_that_of_the_timed_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A meter that counts 5 joules a second: what comes out is 5 watts over the time of the calls."""
    monkeypatch.setattr(measuring, "find_meters", lambda: Found(meters=(Steady(),), absent={"rapl": "not here"}))
    folder = models.build(tmp_path / "engine")
    found = measure(folder, name="row", role="file", spec=BenchSpec(min_time_s=2.5, min_count=64), data=None)
    (latency,) = found.latency
    assert latency.energy is not None
    assert latency.energy.absent == {"rapl": "not here"}
    (meter,) = latency.energy.meters
    assert meter.inferences == latency.count
    assert meter.joules == pytest.approx(5 * meter.seconds, rel=0.02)
    assert meter.seconds == pytest.approx(latency.duration_s, rel=0.02)
    assert meter.net_joules_per_inference is not None
    assert abs(meter.net_joules_per_inference.value) < 0.1 * meter.joules_per_inference.value


def test_an_emulated_processor_is_not_timed(tmp_path: Path, emulated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracy and size, as on a real one; nothing that a clock or a meter says, and no meter is even looked for."""
    folder = models.build(tmp_path / "engine")
    monkeypatch.setattr(host, "emulated", lambda: None)
    real = measure(folder, name="row", role="student", spec=QUICK, data=labelled())
    monkeypatch.setattr(host, "emulated", lambda: emulated)
    monkeypatch.setattr(measuring, "find_meters", lambda: pytest.fail("meters were looked for"))
    found = measure(folder, name="row", role="student", spec=BenchSpec(batch=(1, 4), min_time_s=60), data=labelled())
    assert found.emulated == found.machine["emulation"] == emulated
    assert (found.load_ms, found.first_inference_ms, found.cold_start_ms) == (None, None, None)
    assert (found.latency, found.spans, found.memory) == ((), None, None)
    assert found.accuracy == real.accuracy
    assert (found.size_bytes, found.compressed_bytes) == (real.size_bytes, real.compressed_bytes)
    assert found.verdict is not None
    assert (found.verdict.valid, found.verdict.reasons) == (None, ())
    assert Measurement.model_validate_json(found.model_dump_json()) == found


def test_every_batch_is_run_once_even_there(tmp_path: Path, emulated: str) -> None:
    path = models.save_classifier(tmp_path / "network.onnx", batch=1)
    found = measure(path, name="network", role="file", spec=QUICK, data=None)
    assert (found.emulated, found.accuracy, found.size_bytes) == (emulated, None, path.stat().st_size)
    with pytest.raises(UserError, match="takes batches of 1 only"):
        measure(path, name="network", role="file", spec=BenchSpec(batch=(1, 8)), data=None)
    save_reshape(tmp_path / "one.onnx")
    measure(tmp_path / "one.onnx", name="one", role="file", spec=QUICK, data=None)
    with pytest.raises(UserError, match=r"can't run .*one.onnx on an input of \[8, 4\]"):
        measure(tmp_path / "one.onnx", name="one", role="file", spec=BenchSpec(batch=(1, 8)), data=None)


def test_the_progress_of_an_emulated_accuracy_is_told(tmp_path: Path, emulated: str) -> None:
    seen: list[int] = []

    class Listener(KillTheChild):
        def advance(self, steps: int = 1, **figures: float | str) -> None:
            seen.append(steps)

    with events.listening(Listener(signal.SIGKILL)):
        folder = models.build(tmp_path / "engine")
        measure(folder, name="row", role="student", spec=QUICK, data=labelled(4000))
    assert sum(seen) == 100
    assert len([steps for steps in seen if steps]) > 1


def test_times_are_refused_on_an_emulated_processor(tmp_path: Path, emulated: str) -> None:
    path = models.save_classifier(tmp_path / "network.onnx")
    settings = scenarios.Settings(min_time_s=0.01, min_count=8)
    asked = ScenariosAsked(names=("single-stream",), settings=settings, mlperf=False, loadgen=None)
    with pytest.raises(Unavailable, match=r"MLPerf's scenarios can't be measured here: the processor is emulated"):
        measure(path, name="network", role="file", spec=QUICK, data=None, scenarios=asked)
    with pytest.raises(Unavailable, match="Times by layer can't be measured here"):
        profile(path, name="network")
    with pytest.raises(Unavailable, match="Which is faster can't be measured here"):
        interleave({"a": path, "b": path}, threads=1, processes=2, seconds=0.1)
