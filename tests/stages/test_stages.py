"""What single stages promise, apart from a whole run (tests/test_pipeline.py)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kdeploy import artifacts, engines, pipeline
from kdeploy.errors import GateFailed
from kdeploy.machine import host
from kdeploy.provenance import RunRecord
from kdeploy.recipe.schema import BenchSpec, BundleSpec, DataSpec, EngineSpec
from kdeploy.sources.base import ImageSet
from kdeploy.stages import bench, bundle, gates
from kdeploy.stages.base import Run
from kdeploy.stages.data import _state
from kdeploy.stages.engines import BASELINE, BuildEngine
from kdeploy.stages.export import model_inputs, parity_images, preprocessing_of
from tests.engines import models as engine_models
from tests.training import tiny


def a_run(folder: Path, **more: Any) -> Any:
    """As much of a run as a stage looks at."""
    return SimpleNamespace(folder=folder, recipe=tiny.recipe(), splits=tiny.splits(), **more)


def write_gates(folder: Path, *failed: str) -> None:
    rows = [{"name": "gate", "row": row, "bound": "b", "value": "v", "passed": False} for row in failed]
    held = {"name": "gate", "row": "teacher-pytorch", "bound": "b", "value": "v", "passed": True}
    artifacts.write_json(folder / gates.FILE, {"schema_version": 1, "gates": [*rows, held]})


class TestGates:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for row in ("student-pytorch", "student-onnxruntime-float32", "student-onnxruntime-int8", "student-x-int8"):
            (tmp_path / "engines" / row).mkdir(parents=True)
        (tmp_path / "engines" / "teacher-onnxruntime-float32").mkdir()
        return tmp_path

    def test_a_run_that_did_not_come_so_far_failed_nothing(self, folder: Path) -> None:
        assert gates.read(folder) == []
        assert gates.failed_rows(folder) == set()

    def test_a_failed_int8_speaks_for_itself(self, folder: Path) -> None:
        write_gates(folder, "student-onnxruntime-int8")
        assert gates.failed_rows(folder) == {"student-onnxruntime-int8"}

    def test_a_failed_file_fails_every_engine_made_from_it(self) -> None:
        rows = ["student-onnxruntime-int8", "student-openvino-int8"]
        card = {"precision": "int8", "rows": rows, "validation": {"float32": 0.9, "int8": 0.5, "samples": 10}}
        found = gates._drops([card], 1.0)
        assert [(gate.row, gate.passed) for gate in found] == [(row, False) for row in rows]

    def test_what_an_older_kdeploy_left_is_not_judged(self, tmp_path: Path) -> None:
        (tmp_path / "export").mkdir()
        artifacts.write_json(tmp_path / "export" / "student.int8.json", {"schema_version": 1, "scheme": "x86-vnni"})
        run = Run(tiny.recipe(), tmp_path, RunRecord.new("tiny", 0))
        assert gates._cards(run) == []

    def test_mixed_is_held_to_its_own_budget(self) -> None:
        validation = {"float32": 0.9, "mixed": 0.896, "samples": 500}
        card = {"precision": "mixed", "rows": ["r"], "validation": validation, "budget_points": 0.3}
        (gate,) = gates._drops([card], None)
        assert (gate.name, gate.bound, gate.passed) == (
            "mixed_drop_points",
            "mixed within 0.3 points of float32, or above",
            False,
        )
        assert gates._drops([{"precision": "float16", "rows": ["r"]}], 1.0) == []

    def test_a_wrong_export_takes_all_along_that_was_made_from_it(self, folder: Path) -> None:
        write_gates(folder, "student-onnxruntime-float32")
        assert gates.failed_rows(folder) == {
            "student-onnxruntime-float32",
            "student-onnxruntime-int8",
            "student-x-int8",
        }

    def test_a_wrong_export_speaks_for_no_other_student(self, folder: Path) -> None:
        for row in ("student-2-pytorch", "student-2-onnxruntime-float32", "student-2-onnxruntime-int8"):
            (folder / "engines" / row).mkdir()
        write_gates(folder, "student-2-onnxruntime-float32")
        assert gates.failed_rows(folder) == {"student-2-onnxruntime-float32", "student-2-onnxruntime-int8"}
        write_gates(folder, "student-onnxruntime-float32")
        assert not [row for row in gates.failed_rows(folder) if row.startswith("student-2")]

    def test_each_student_is_judged_beside_itself_alone(self, tmp_path: Path) -> None:
        for role, accuracy in (("alone", 0.8), ("student", 0.9), ("alone-2", 0.6), ("student-2", 0.5)):
            history = {"selected": "last", "last": {"validation_accuracy": accuracy}}
            artifacts.write_json(tmp_path / role / "history.json", history)
        found = {gate.row: (gate.passed, gate.value) for gate in gates._gain(tmp_path, 5.0)}
        assert found == {
            "student-pytorch": (True, "+10.00 points on validation"),
            "student-2-pytorch": (False, "-10.00 points on validation"),
        }

    @pytest.mark.parametrize(("int8", "passed"), [(0.95, True), (0.9499, False), (0.99, True)])
    def test_the_bound_of_int8_is_in_points_and_holds_when_it_is_met(self, int8: float, passed: bool) -> None:
        validation = {"float32": 0.96, "int8": int8, "samples": 500}
        card = {"precision": "int8", "rows": ["student-onnxruntime-int8"], "validation": validation}
        (gate,) = gates._drops([card], 1.0)
        assert gate.passed == passed
        assert gate.row == "student-onnxruntime-int8"
        assert gates._drops([card], None) == []

    @pytest.mark.parametrize(("share", "passed"), [(0.99, True), (0.9899, False), (1.0, True)])
    def test_without_validation_images_int8_must_say_what_float32_says(self, share: float, passed: bool) -> None:
        agreement = {"share": share, "samples": 500, "images": "noise images"}
        (gate,) = gates._drops([{"precision": "int8", "rows": ["r"], "agreement": agreement}], 1.0)
        assert gate.passed == passed
        assert gate.bound == "int8 names float32's class on at least 99 %"
        assert gate.value == f"{share:.2%} of 500 noise images"


class TestBuildEngine:
    @pytest.fixture
    def run(self, tmp_path: Path) -> Any:
        card = {
            "image": {"height": engine_models.SIZE, "width": engine_models.SIZE, "channels": 1},
            "mean": [0.0],
            "std": [1.0],
            "classes": list(engine_models.CLASSES),
            "parameters": 192,
            "macs": 192,
        }
        (tmp_path / "export").mkdir()
        engine_models.save_classifier(tmp_path / "export" / "student.float32.onnx", name="images")
        engine_models.save_quantised(tmp_path / "export" / "student.int8-x86-vnni.onnx", name="images")
        artifacts.write_json(tmp_path / "export" / "student.int8-x86-vnni.json", {"scheme": "x86-vnni", "opset": 18})
        artifacts.write_json(tmp_path / "networks" / "student" / "student.json", card)
        return a_run(tmp_path)

    @pytest.mark.parametrize("precision", ["float32", "int8"])
    @pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
    def test_each_engine_is_built_from_the_file_of_its_precision(self, run: Any, engine: str, precision: str) -> None:
        pytest.importorskip(engine)
        asked = EngineSpec(engine=engine, precision=precision, scheme="x86-vnni")
        run.recipe = run.recipe.model_copy(update={"engines": (asked,)})
        stage = BuildEngine("student", asked)
        assert stage.row == f"student-{engine}-{precision}"
        files = stage.run(run)
        assert run.folder / "engines" / stage.row / "manifest.json" in files
        manifest = engines.read_manifest(run.folder / "engines" / stage.row)
        assert (manifest.engine, manifest.precision, manifest.opset) == (engine, precision, 18)
        label = "int8-x86-vnni" if precision == "int8" else precision
        assert manifest.source == artifacts.sha256_file(run.folder / "export" / f"student.{label}.onnx")
        assert manifest.scheme == ("x86-vnni" if precision == "int8" else None)

    def test_bfloat16_is_made_from_the_float32_file(self, run: Any) -> None:
        asked = EngineSpec(engine="openvino", precision="bfloat16")
        stage = BuildEngine("student", asked)
        assert stage.source(run) == run.folder / "export" / "student.float32.onnx"

    def test_torch_compiled_has_a_row_beside_the_baseline(self) -> None:
        compiled = BuildEngine("student", EngineSpec(engine="pytorch", options={"compile": True}, variant="compiled"))
        assert compiled.row == "student-pytorch-compiled"

    def test_options_and_variant_are_part_of_it(self, run: Any) -> None:
        plain, other = (
            BuildEngine("student", EngineSpec()),
            BuildEngine("student", EngineSpec(options={"a": 1}, variant="one")),
        )
        assert other.row == "student-onnxruntime-float32-one"
        assert "options" not in plain.inputs(run)
        assert other.inputs(run) == {**plain.inputs(run), "options": {"a": 1}}


class TestBundle:
    @staticmethod
    def measured(monkeypatch: pytest.MonkeyPatch, *roles: str, **p50_ms: float) -> None:
        found = [
            SimpleNamespace(
                name=f"{role}-{engine}".replace("_", "-"),
                role=role,
                engine=engine.partition("_")[0],
                emulated=None,
                latency=[
                    SimpleNamespace(batch=32, p50=SimpleNamespace(value_ms=0.001)),
                    SimpleNamespace(batch=1, p50=SimpleNamespace(value_ms=value)),
                ],
            )
            for role in roles or ("student",)
            for engine, value in p50_ms.items()
        ]
        monkeypatch.setattr("kdeploy.stages.bench.measurements", lambda folder: found)

    def test_the_fastest_at_batch_one_that_holds_the_gates(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.measured(monkeypatch, pytorch=0.1, onnxruntime_float32=0.3, onnxruntime_int8=0.2)
        assert bundle.choose(a_run(tmp_path)) == "student-onnxruntime-int8"
        write_gates(tmp_path, "student-onnxruntime-int8")
        assert bundle.choose(a_run(tmp_path)) == "student-onnxruntime-float32"
        write_gates(tmp_path, "student-onnxruntime-int8", "student-onnxruntime-float32")
        with pytest.raises(GateFailed, match="No engine holds the gates"):
            bundle.choose(a_run(tmp_path))

    def test_the_smallest_where_nobody_can_say_which_is_the_fastest(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes = {"pytorch": 100, "onnxruntime-float32": 300, "onnxruntime-int8": 200}
        found = [
            SimpleNamespace(
                name=f"student-{name}",
                role="student",
                engine=name.partition("-")[0],
                size_bytes=size,
                latency=(),
                emulated="qemu-aarch64-static",
            )
            for name, size in sizes.items()
        ]
        monkeypatch.setattr("kdeploy.stages.bench.measurements", lambda folder: found)
        assert bundle.choose(a_run(tmp_path)) == "student-onnxruntime-int8"
        write_gates(tmp_path, "student-onnxruntime-int8")
        assert bundle.choose(a_run(tmp_path)) == "student-onnxruntime-float32"

    def test_one_of_each_student(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.measured(monkeypatch, "student", "student-2", onnxruntime_float32=0.3, onnxruntime_int8=0.2)
        assert bundle.choose(a_run(tmp_path), "student-2") == "student-2-onnxruntime-int8"
        write_gates(tmp_path, "student-2-onnxruntime-int8", "student-2-onnxruntime-float32")
        with pytest.raises(GateFailed, match="No engine of student-2 holds the gates"):
            bundle.choose(a_run(tmp_path), "student-2")
        assert bundle.choose(a_run(tmp_path), "student") == "student-onnxruntime-int8"

    @pytest.mark.parametrize(
        ("role", "file"),
        [("student", "digits.kdz"), ("student-2", "digits-student-2.kdz"), ("teacher", "digits.kdz")],
    )
    def test_what_a_bundle_is_called(self, tmp_path: Path, role: str, file: str) -> None:
        assert bundle.bundle_file(tmp_path, "digits", role) == tmp_path / file

    def test_a_bundle_tells_of_its_own_network_and_of_all_trainings(self) -> None:
        stages = ["networks/student", "networks/alone-2", "data", "gates"]
        for role in ("teacher", "student", "student-2"):
            stages += [f"export/{role}", f"quantize/{role}-int8-x86-vnni", f"engines/{role}-onnxruntime-int8"]
        told = [stage for stage in stages if bundle._leads_to(stage, "student-onnxruntime-int8")]
        assert told == [
            "networks/student",
            "networks/alone-2",
            "export/student",
            "quantize/student-int8-x86-vnni",
            "engines/student-onnxruntime-int8",
        ]

    def test_the_samples_are_of_classes_spread_over_the_list(self, tmp_path: Path) -> None:
        from PIL import Image

        run = a_run(tmp_path)
        left = bundle._leave_samples(run)
        assert [path.name for path in left] == ["digit-2.png", "digit-4.png", "digit-7.png"]
        for path in left:
            pixels = np.asarray(Image.open(path))[:, :, None]
            same = (run.splits.test.images == pixels).all(axis=(1, 2, 3))
            assert int(path.stem[-1]) in run.splits.test.labels[same]

    def test_a_class_that_test_does_not_show_has_no_sample(self, tmp_path: Path) -> None:
        run = a_run(tmp_path)
        test = run.splits.test
        run.splits = replace(run.splits, test=test.take(np.flatnonzero(test.labels != 4)))
        assert [path.name for path in bundle._leave_samples(run)] == ["digit-2.png", "digit-7.png"]

    def test_no_samples(self, tmp_path: Path) -> None:
        run = a_run(tmp_path)
        run.recipe = run.recipe.model_copy(update={"bundle": BundleSpec(samples=0)})
        assert bundle._leave_samples(run) == []

    @pytest.mark.parametrize(
        ("label", "name"), [("7", "digit-7"), ("12", "12"), ("../up", "---up"), ("n01/goldfish é", "n01-goldfish-é")]
    )
    def test_a_class_name_is_no_path(self, label: str, name: str) -> None:
        assert bundle._file_name(label) == name


class TestData:
    def test_the_state_of_files_changes_with_name_size_and_time(self, tmp_path: Path) -> None:
        data = DataSpec(source="imagefolder", root=str(tmp_path / "images"))
        assert _state(data) == ""
        (tmp_path / "images" / "a").mkdir(parents=True)
        file = tmp_path / "images" / "a" / "1.png"
        file.write_bytes(b"1")
        seen = [_state(data)]
        file.write_bytes(b"12")
        seen.append(_state(data))
        file.rename(file.with_name("2.png"))
        seen.append(_state(data))
        assert len(set(seen)) == 3
        assert _state(data) == seen[-1]

    def test_a_single_file(self, tmp_path: Path) -> None:
        (tmp_path / "all.zip").write_bytes(b"1")
        data = DataSpec(source="imagefolder", root=str(tmp_path / "all.zip"))
        before = _state(data)
        (tmp_path / "all.zip").write_bytes(b"12")
        assert "" != before != _state(data)


class TestExport:
    @pytest.mark.parametrize(("validation", "filled"), [(300, 0), (256, 0), (40, 150)])
    def test_parity_is_shown_on_validation_filled_from_train(self, validation: int, filled: int) -> None:
        splits = tiny.splits()
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (validation, 8, 8, 1), dtype=np.uint8)
        run = SimpleNamespace(splits=replace(splits, validation=replace(splits.validation, images=images)))
        found = parity_images(run)  # type: ignore[arg-type]
        assert len(found) == min(256, validation + filled)
        assert np.array_equal(found[:validation], images[:256])
        assert np.array_equal(found[validation:], splits.train.images[:filled])

    def test_inputs_are_raw_or_normalised_as_the_card_says(self) -> None:
        card = {"image": {"height": 8, "width": 8, "channels": 1}, "mean": [0.25], "std": [0.5]}
        images = tiny.splits().test.images[:3]
        assert model_inputs(images, preprocessing_of(card, in_graph=True)) is images
        outside = model_inputs(images, preprocessing_of(card, in_graph=False))
        assert outside.dtype == np.float32
        np.testing.assert_allclose(outside, (images.transpose(0, 3, 1, 2) / 255 - 0.25) / 0.5, rtol=1e-6, atol=1e-6)


def test_the_rows_of_the_table() -> None:
    int8 = {"engines": [{"precision": "float32"}, {"precision": "int8"}]}
    rows = [engine.row for engine in pipeline.engines(tiny.recipe(**int8))]
    assert rows == [
        "teacher-pytorch",
        "teacher-onnxruntime-float32",
        "alone-pytorch",
        "student-pytorch",
        "student-onnxruntime-float32",
        "student-onnxruntime-int8",
    ]
    without = [engine.row for engine in pipeline.engines(tiny.recipe(distill={"baseline": "none"}))]
    assert without == [row for row in rows if row != "alone-pytorch" and not row.endswith("int8")]


def test_only_what_is_trained_here_has_epochs_to_report() -> None:
    taken = tiny.recipe(teacher={"train": None, "checkpoint": "theirs.pt"})
    names = [stage.name for stage in pipeline.plan(taken)]
    assert [name for name in names if name.startswith("epochs/")] == ["epochs/alone", "epochs/student"]


def test_an_engine_is_built_again_when_its_card_changes(tmp_path: Path) -> None:
    """The same weights with other class names make another manifest."""
    folder = tmp_path / "networks" / "student"
    artifacts.write_text(folder / "student.safetensors", "weights")
    artifacts.write_json(folder / "student.json", {"classes": ["cat"]})
    stage = BuildEngine("student", BASELINE)
    before = stage.inputs(a_run(tmp_path))
    artifacts.write_json(folder / "student.json", {"classes": ["kitty"]})
    assert stage.inputs(a_run(tmp_path)) != before


class TestBench:
    def test_an_emulated_processor_is_not_profiled_and_that_is_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        row = "student-onnxruntime-float32"
        engine_models.build(tmp_path / "engines" / row)
        images = engine_models.images(20)
        test = ImageSet(images, np.zeros(20, np.int64), engine_models.CLASSES)
        recipe = SimpleNamespace(bench=BenchSpec(layers=True))
        run: Any = SimpleNamespace(folder=tmp_path, recipe=recipe, splits=SimpleNamespace(test=test))
        built: Any = SimpleNamespace(row=row, role="student", asked=SimpleNamespace(engine="onnxruntime"))
        monkeypatch.setattr(host, "emulated", lambda: "qemu-aarch64-static")
        bench.Bench(built).run(run)
        (measured,) = bench.measurements(tmp_path)
        assert (measured.emulated, measured.layers, measured.latency) == ("qemu-aarch64-static", None, ())
        assert measured.accuracy is not None
        assert "no times by layer, because the processor is emulated (qemu-aarch64-static)" in caplog.text
