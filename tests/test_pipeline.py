"""One whole tiny run, and what happens to copies of it: done again, changed, damaged, stopped by a gate."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kdeploy import artifacts, events, parity, pipeline, recipe, results
from kdeploy.errors import UserError
from kdeploy.provenance import RunRecord
from kdeploy.recipe.schema import Recipe
from kdeploy.stages import bundle, export, gates, quantize
from kdeploy.stages.base import Run
from kdeploy.training import loop
from tests.test_events import Heard
from tests.training.tiny import Interrupting

RECIPE = """\
name: tiny
data: {source: sklearn-digits, limit: 150, augment: {crop: 1, flip: false}}
teacher: {model: resnet8, width: 0.5, train: {epochs: 12, batch: 32, lr: 0.1, precision: float32}}
student: {model: resnet8, width: 0.25}
distill: {baseline: none, epochs: 2, batch: 32, lr: 0.05, precision: float32}
engines:
  - {engine: onnxruntime, precision: float32}
  - {engine: onnxruntime, precision: int8, scheme: x86-avx2, calibration: {samples: 32}}
bench: {batch: [1], min_time_s: 0.01, min_count: 10}
gates: {int8_drop_points: 100}
"""
STAGES = [
    "data",
    "networks/teacher",
    "networks/student",
    "export/teacher",
    "export/student",
    "quantize/student-int8-x86-avx2",
    "engines/teacher-pytorch",
    "engines/teacher-onnxruntime-float32",
    "engines/student-pytorch",
    "engines/student-onnxruntime-float32",
    "engines/student-onnxruntime-int8",
    "epochs/teacher",
    "epochs/student",
    "bench/teacher-pytorch",
    "bench/teacher-onnxruntime-float32",
    "bench/student-pytorch",
    "bench/student-onnxruntime-float32",
    "bench/student-onnxruntime-int8",
    "gates",
    "bundle",
    "report",
]


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    file.write_text(RECIPE, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def loaded(recipe_file: Path) -> Recipe:
    return recipe.load(str(recipe_file))


@pytest.fixture(scope="module")
def finished(loaded: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "tiny"
    pipeline.execute(pipeline.open_run(loaded, folder), pipeline.plan(loaded))
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "fit", lambda *_, **__: pytest.fail("a training has begun"))


def go_on(loaded: Recipe, folder: Path, stages: Sequence[Any] | None = None) -> list[str]:
    """Run the recipe in the folder; the stages that were not skipped."""
    heard = Heard()
    with events.listening(heard):
        run = pipeline.open_run(loaded, folder)
        stages = pipeline.plan(loaded) if stages is None else stages
        pipeline.execute(run, stages)
    skipped = [line.removesuffix(": done before") for line in heard.lines if line.endswith(": done before")]
    return [stage.name for stage in stages if stage.name not in skipped]


def test_a_run_holds_what_its_record_says(finished: Path, loaded: Recipe) -> None:
    record = RunRecord.read(finished)
    assert list(record.stages) == STAGES == [stage.name for stage in pipeline.plan(loaded)]
    for stage in record.stages.values():
        assert stage.outputs
        for name, digest in stage.outputs.items():
            assert artifacts.sha256_file(finished / name) == digest
    written = [name for stage in record.stages.values() for name in stage.outputs]
    assert len(set(written)) == len(written)  # no file is two stages'
    assert recipe.load(str(finished / "recipe.yaml")) == loaded


def test_what_a_run_found(finished: Path) -> None:
    found = results.read(finished)
    assert [row.key for row in found.rows] == [
        "teacher-pytorch",
        "teacher-onnxruntime-float32",
        "student-pytorch",
        "student-onnxruntime-float32",
        "student-onnxruntime-int8",
    ]
    torch_row, onnx_row = found.rows[0], found.rows[1]
    assert torch_row.accuracy == onnx_row.accuracy
    assert torch_row.latency_ratio == 1.0
    assert not found.failed
    assert len(found.gates) == 4  # parity of three files, and the int8 drop
    assert json.loads(json.dumps(found.to_json()))["schema_version"] == 1
    assert found.bundle.is_file()
    assert found.report.is_file()
    assert all(path.is_file() for path in found.samples)
    assert len(found.samples) == 3


def test_a_second_run_does_nothing(folder: Path, loaded: Recipe, no_training: None) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*") if path.is_file()}
    assert go_on(loaded, folder) == []
    after = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*") if path.is_file()}
    assert before == after


class TestAnotherRecipe:
    def test_the_difference_is_shown_with_the_ways_out(self, folder: Path, recipe_file: Path) -> None:
        changed = recipe.load(str(recipe_file), ["distill.lr=0.2"])
        before = (folder / "run.json").read_bytes()
        with pytest.raises(UserError) as caught:
            pipeline.open_run(changed, folder)
        lines = str(caught.value).splitlines()
        assert lines[0] == f"{folder} holds a run of another recipe:"
        assert [line for line in lines if line.startswith(("+  ", "-  "))] == ["-  lr: 0.05", "+  lr: 0.2"]
        assert lines[-1] == "Type --fresh to remove that run and start again, or --out DIR to keep it."
        assert (folder / "run.json").read_bytes() == before

    def test_what_a_recipe_says_about_itself_may_change(self, folder: Path, recipe_file: Path) -> None:
        changed = recipe.load(str(recipe_file), ["about=Better words."])
        assert pipeline.open_run(changed, folder).record.stages

    def test_gates_and_how_engines_are_measured_may_change(
        self, folder: Path, recipe_file: Path, no_training: None
    ) -> None:
        """A gate that failed is no reason to train again (what is measured anew takes its old row's place)."""
        changed = recipe.load(str(recipe_file), ["gates.int8_drop_points=99", "bench.min_count=65"])
        again = go_on(changed, folder)
        assert {stage.partition("/")[0] for stage in again} == {"bench", "gates", "bundle", "report"}
        assert go_on(changed, folder) == []

    def test_how_often_it_is_saved_may_change_and_a_nan_may_be_skipped(self, folder: Path, recipe_file: Path) -> None:
        changed = recipe.load(str(recipe_file), ["distill.checkpoint_steps=9", "distill.nonfinite=skip"])
        assert pipeline.open_run(changed, folder).record.stages
        assert recipe.load(str(folder / "recipe.yaml")) == changed
        back = recipe.load(str(recipe_file), ["distill.checkpoint_steps=9"])
        with pytest.raises(UserError, match=r"-  nonfinite: skip\n\+  nonfinite: stop"):
            pipeline.open_run(back, folder)

    def test_a_run_of_an_older_kdeploy_with_fewer_fields_goes_on(self, folder: Path, loaded: Recipe) -> None:
        text = (folder / "recipe.yaml").read_text()
        assert "\n  nesterov: false\n" in text
        (folder / "recipe.yaml").write_text(text.replace("\n  nesterov: false\n", "\n"))
        assert go_on(loaded, folder, [pipeline.training(loaded)[0]]) == []

    def test_fresh_starts_again(self, folder: Path, recipe_file: Path) -> None:
        changed = recipe.load(str(recipe_file), ["distill.lr=0.2"])
        run = pipeline.open_run(changed, folder, fresh=True)
        assert {path.name for path in folder.iterdir()} == {"recipe.yaml", "run.json"}
        assert run.record.stages == {}

    def test_fresh_through_a_link_keeps_the_link(self, folder: Path, loaded: Recipe, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(folder)
        pipeline.open_run(loaded, tmp_path / "link", fresh=True)
        assert (tmp_path / "link").is_symlink()
        assert {path.name for path in folder.iterdir()} == {"recipe.yaml", "run.json"}

    def test_fresh_follows_no_link_out_of_the_run(self, folder: Path, loaded: Recipe, tmp_path: Path) -> None:
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious" / "file").touch()
        (folder / "link").symlink_to(tmp_path / "precious")
        pipeline.open_run(loaded, folder, fresh=True)
        assert (tmp_path / "precious" / "file").is_file()
        assert not (folder / "link").exists()


class TestAFolderThatIsNoRun:
    @pytest.mark.parametrize("fresh", [False, True])
    def test_is_not_touched(self, loaded: Recipe, tmp_path: Path, fresh: bool) -> None:
        (tmp_path / "thesis.tex").write_text("precious")
        with pytest.raises(UserError, match=r"is there already and is not a run\. Choose another place with --out DIR"):
            pipeline.open_run(loaded, tmp_path, fresh=fresh)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    @pytest.mark.parametrize("content", ['{"race": "10 km"}', "not JSON", ""])
    @pytest.mark.parametrize("fresh", [False, True])
    def test_is_not_touched_with_somebodys_run_json(
        self, loaded: Recipe, tmp_path: Path, content: str, fresh: bool
    ) -> None:
        (tmp_path / "run.json").write_text(content)
        (tmp_path / "thesis.tex").write_text("precious")
        with pytest.raises(UserError, match=r"run\.json is not"):
            pipeline.open_run(loaded, tmp_path, fresh=fresh)
        assert {path.name for path in tmp_path.iterdir()} == {"run.json", "thesis.tex"}

    def test_a_file(self, loaded: Recipe, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match="is there already and is not a run"):
            pipeline.open_run(loaded, tmp_path / "file")

    def test_an_empty_folder_and_one_that_was_opened_and_killed_are_taken(self, loaded: Recipe, tmp_path: Path) -> None:
        pipeline.open_run(loaded, tmp_path)
        (tmp_path / "run.json").unlink()
        pipeline.open_run(loaded, tmp_path)
        assert (tmp_path / "run.json").is_file()


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize("harm", [Path.unlink, damage])
def test_a_lost_output_is_made_again_and_what_hangs_on_it_if_it_differs(
    folder: Path, loaded: Recipe, harm: Callable[[Path], None]
) -> None:
    harm(folder / "export" / "student.int8-x86-avx2.onnx")
    again = go_on(loaded, folder)
    assert again[0] == "quantize/student-int8-x86-avx2"
    assert not {stage for stage in again if "float32" in stage or "pytorch" in stage or stage.startswith("networks")}
    assert go_on(loaded, folder) == []


def test_lost_weights_are_trained_again_once(folder: Path, loaded: Recipe) -> None:
    """The same bits come out, so that nothing is exported again; the history's times are new, so the gates are."""
    weights = folder / "networks" / "student" / "student.safetensors"
    before = artifacts.sha256_file(weights)
    weights.unlink()
    again = go_on(loaded, folder)
    assert artifacts.sha256_file(weights) == before
    assert again[0] == "networks/student"
    assert "networks/student/epochs.json" not in RunRecord.read(folder).stages["networks/student"].outputs
    assert not {"networks/teacher", "export/student", "epochs/student", "bench/student-pytorch"} & set(again)
    assert go_on(loaded, folder) == []


class Made:
    """A stage that writes its name and how often it ran, from the files of the stages before."""

    def __init__(self, name: str, *before: str, constant: bool = False) -> None:
        self.name, self.before, self.constant = name, before, constant
        self.runs = 0

    def inputs(self, run: Run) -> Mapping[str, Any]:
        return run.outputs_of(*self.before)

    def run(self, run: Run) -> Sequence[Path]:
        self.runs += 1
        artifacts.write_text(run.folder / self.name, "same" if self.constant else f"{self.name} {self.runs}")
        return [run.folder / self.name]


def test_only_what_depends_on_a_change_is_made_again(loaded: Recipe, tmp_path: Path) -> None:
    first, other = Made("first"), Made("other")
    second, constant = Made("second", "first"), Made("constant", "first", constant=True)
    last = Made("last", "constant")
    stages = [first, other, second, constant, last]
    run = pipeline.open_run(loaded, tmp_path / "run")
    pipeline.execute(run, stages)
    (run.folder / "first").unlink()
    pipeline.execute(run, stages)
    assert {stage.name: stage.runs for stage in stages} == {
        "first": 2,
        "other": 1,
        "second": 2,
        "constant": 2,
        "last": 1,  # what it is made from came out the same
    }


def test_a_stage_that_fails_is_not_recorded_and_those_before_are(loaded: Recipe, tmp_path: Path) -> None:
    def fail(run: Run) -> Sequence[Path]:
        raise KeyboardInterrupt

    good, bad = Made("good"), Made("bad")
    bad.run = fail  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        pipeline.execute(pipeline.open_run(loaded, tmp_path / "run"), [good, bad])
    assert list(RunRecord.read(tmp_path / "run").stages) == ["good"]


def test_a_stage_whose_input_was_never_made_says_so(loaded: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no networks/student yet: its run did not come so far"):
        pipeline.execute(pipeline.open_run(loaded, tmp_path / "run"), [export.Export("student")])


def test_one_teacher_serves_all_seeds(finished: Path, loaded: Recipe, tmp_path: Path) -> None:
    other = loaded.model_copy(update={"seed": 1})
    heard = Heard()
    with events.listening(heard):
        run = pipeline.open_run(other, tmp_path / "seed-1")
        pipeline.execute(run, pipeline.training(other), [finished, run.folder, tmp_path / "nothing"])
    taken = [line.partition(":")[0] for line in heard.lines if "taken over from" in line]
    assert taken == ["data", "networks/teacher"]
    one, two = (RunRecord.read(at).stages for at in (finished, run.folder))
    assert one["networks/teacher"].outputs == two["networks/teacher"].outputs
    student = "networks/student/student.safetensors"
    assert one["networks/student"].outputs[student] != two["networks/student"].outputs[student]
    assert go_on(other, run.folder, pipeline.training(other)) == []


def test_a_sibling_that_is_damaged_is_not_taken_over(
    finished: Path, folder: Path, loaded: Recipe, tmp_path: Path
) -> None:
    damage(folder / "data.json")
    run = pipeline.open_run(loaded, tmp_path / "other")
    pipeline.execute(run, pipeline.training(loaded)[:1], [folder])
    assert artifacts.sha256_file(run.folder / "data.json") == artifacts.sha256_file(finished / "data.json")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Images of two classes in folders."""
    generator = np.random.default_rng(0)
    for label, level in (("dark", 40), ("light", 200)):
        (tmp_path / "tree" / label).mkdir(parents=True)
        for number in range(24):
            pixels = np.clip(generator.normal(level, 30, (8, 8)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "tree" / label / f"{number}.png")
    return tmp_path / "tree"


def of_tree(recipe_file: Path, tree: Path) -> Recipe:
    small = ["teacher.train.epochs=4", "data.limit=", "distill.epochs=1"]
    return recipe.load(str(recipe_file), ["data.source=imagefolder", f"data.root={tree}", *small])


class TestData:
    def test_touched_files_are_read_again_and_nothing_is_trained(
        self, recipe_file: Path, tree: Path, tmp_path: Path
    ) -> None:
        loaded = of_tree(recipe_file, tree)
        stages = pipeline.training(loaded)
        assert go_on(loaded, tmp_path / "run", stages) == ["data", "networks/teacher", "networks/student"]
        os.utime(tree / "dark" / "0.png", (1, 1))
        assert go_on(loaded, tmp_path / "run", stages) == ["data"]
        Image.new("L", (8, 8), 77).save(tree / "dark" / "0.png")
        assert go_on(loaded, tmp_path / "run", stages) == ["data", "networks/teacher", "networks/student"]

    def test_a_training_interrupted_before_the_data_changed_is_left_as_it_is(
        self, recipe_file: Path, tree: Path, tmp_path: Path
    ) -> None:
        loaded = of_tree(recipe_file, tree)
        stages = pipeline.training(loaded)
        with pytest.raises(KeyboardInterrupt), events.listening(Interrupting("teacher", 2)):
            go_on(loaded, tmp_path / "run", stages)
        image = (tree / "dark" / "0.png").read_bytes()
        before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
        Image.new("L", (8, 8), 77).save(tree / "dark" / "0.png")
        with pytest.raises(UserError, match=r"since then this has changed: the images of the data set\. Put it back"):
            go_on(loaded, tmp_path / "run", stages)
        assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
        (tree / "dark" / "0.png").write_bytes(image)
        heard = Heard()
        with events.listening(heard):
            go_on(loaded, tmp_path / "run", stages[:2])
        assert "teacher: continues after epoch 2 of 4" in heard.lines

    def test_an_interrupted_training_goes_on(self, loaded: Recipe, tmp_path: Path, finished: Path) -> None:
        stages = pipeline.training(loaded)
        with pytest.raises(KeyboardInterrupt), events.listening(Interrupting("teacher", 2)):
            go_on(loaded, tmp_path / "run", stages)
        heard = Heard()
        with events.listening(heard):
            go_on(loaded, tmp_path / "run", stages[:2])
        assert "teacher: continues after epoch 2 of 12" in heard.lines
        weights = "networks/teacher/teacher.safetensors"
        one, two = (RunRecord.read(at).stages["networks/teacher"].outputs for at in (tmp_path / "run", finished))
        assert one[weights] == two[weights]
        assert not list((tmp_path / "run").rglob("state*"))


def status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The exit status of a verb and what it says on standard error."""
    from kdeploy.cli.main import _run

    monkeypatch.setattr(sys, "argv", ["kdeploy", *words])
    code = _run()
    return code, capsys.readouterr().err


class TestGates:
    def test_an_int8_that_lost_too_much_is_written_down_and_all_else_goes_on(
        self, folder: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        compare = quantize._compare

        def worse(*arguments: Any) -> Any:
            return compare(*arguments)[0], {"validation": {"samples": 20, "float32": 1.5, "int8": 0.25}}

        monkeypatch.setattr(quantize, "_compare", worse)
        (folder / "export" / "student.int8-x86-avx2.json").unlink()
        (folder / "report.html").unlink()
        code, said = status(monkeypatch, capsys, "run", str(recipe_file), "--out", str(folder))
        assert code == 3
        assert "int8_drop_points (student-onnxruntime-int8)" in said
        (failed,) = results.read(folder).failed
        assert (failed.name, failed.row) == ("int8_drop_points", "student-onnxruntime-int8")
        assert (folder / "report.html").is_file()
        assert results.report_data(folder).shipped == "student-onnxruntime-float32"
        assert len(results.read(folder).rows) == 5

    def test_an_export_that_computes_something_else_ships_nothing_and_the_report_is_there(
        self, folder: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        compare = parity.compare

        def far(*arguments: Any, **more: Any) -> parity.Parity:
            found = compare(*arguments, **more)
            return found.model_copy(update={"passed": False, "reasons": ("cosine similarity 0.5 is below 0.9999",)})

        monkeypatch.setattr(parity, "compare", far)
        (folder / "export" / "student.float32.onnx").unlink()
        (folder / "report.html").unlink()
        code, said = status(monkeypatch, capsys, "run", str(recipe_file), "--out", str(folder))
        assert code == 3
        assert "parity of student.float32.onnx" in said
        assert "cosine similarity 0.5 is below 0.9999" in said
        assert "No engine holds the gates, so there is nothing to bundle" in said
        found = results.read(folder)
        assert not found.bundle.exists()
        assert found.to_json()["bundle"] is None
        assert results.report_data(folder).shipped is None
        assert found.report.is_file()
        assert gates.failed_rows(folder) >= {"student-onnxruntime-float32", "student-onnxruntime-int8"}
        assert "teacher-onnxruntime-float32" not in gates.failed_rows(folder)

    def test_a_named_engine_is_bundled_all_the_same(self, folder: Path, recipe_file: Path) -> None:
        write_gates(folder, "student-onnxruntime-float32")
        named = recipe.load(str(recipe_file), ["bundle.engine=onnxruntime-int8"])
        assert bundle.choose(Run(named, folder, RunRecord.read(folder))) == "student-onnxruntime-int8"

    def test_gains_are_judged_on_the_epoch_that_is_kept(self, tmp_path: Path) -> None:
        for role, last, chosen in (("alone", 0.80, 0.95), ("student", 0.85, 0.90)):
            for selected in ("last", "validation"):
                history = {
                    "selected": selected,
                    "last": {"validation_accuracy": last},
                    "chosen": {"validation_accuracy": chosen},
                }
                artifacts.write_json(tmp_path / selected / role / "history.json", history)
        (kept_last,) = gates._gain(tmp_path / "last", 5.0)
        (kept_chosen,) = gates._gain(tmp_path / "validation", 5.0)
        assert (kept_last.passed, kept_last.value) == (True, "+5.00 points on validation")
        assert (kept_chosen.passed, kept_chosen.value) == (False, "-5.00 points on validation")
        assert gates._gain(tmp_path / "last", None) == []


def write_gates(folder: Path, row: str) -> None:
    gate = {"name": "parity", "row": row, "bound": "b", "value": "v", "passed": False}
    artifacts.write_json(folder / gates.FILE, {"schema_version": 1, "gates": [gate]})


def test_nothing_measured_is_nothing_to_bundle(loaded: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no measured engine to choose from"):
        bundle.choose(pipeline.open_run(loaded, tmp_path / "run"))


def test_a_run_without_measurements_has_no_results(loaded: Recipe, tmp_path: Path) -> None:
    pipeline.open_run(loaded, tmp_path / "run")
    with pytest.raises(UserError, match="holds no measurement yet"):
        results.read(tmp_path / "run")


def test_the_report_repeats_each_warning_once(folder: Path) -> None:
    lines = "2026-01-01 warning: careful\n" * 2 + "2026-01-01 warning: hot\n2026-01-01 hello\n"
    (folder / "run.log").write_text(lines)
    assert results.report_data(folder).warnings == ("careful", "hot")


def test_reopening_takes_the_recipe_of_the_run(folder: Path, loaded: Recipe, no_training: None) -> None:
    run = pipeline.reopen(folder)
    assert run.recipe == loaded
    pipeline.execute(run, pipeline.plan(run.recipe))
