"""A run that leaves several students: a bundle and a verdict for each, in one table and one report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kdeploy import artifacts, bundle, events, pipeline, results
from kdeploy.cli.main import _run
from kdeploy.recipe.schema import Recipe
from kdeploy.runtime import Predictor
from kdeploy.stages import bundle as bundles
from kdeploy.stages import gates
from tests.test_events import Heard
from tests.training.test_online_ensemble import recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def asked() -> Recipe:
    int8 = {"precision": "int8", "scheme": "x86-avx2", "calibration": {"samples": 32}}
    more = {
        "engines": [{"precision": "float32"}, int8],
        "bench": {"min_time_s": 0.01, "min_count": 10},
        "gates": {"int8_drop_points": 100},
    }
    return Recipe.model_validate({**recipe().model_dump(mode="json"), **more})


@pytest.fixture(scope="module")
def finished(asked: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    pipeline.execute(pipeline.open_run(asked, folder), pipeline.plan(asked))
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_several_bundles_and_one_table(finished: Path) -> None:
    found = results.read(finished)
    assert [row.key for row in found.rows] == [
        "alone-pytorch",
        "alone-2-pytorch",
        "student-pytorch",
        "student-onnxruntime-float32",
        "student-onnxruntime-int8",
        "student-2-pytorch",
        "student-2-onnxruntime-float32",
        "student-2-onnxruntime-int8",
    ]
    assert found.baseline == "alone-pytorch"
    files = {"student": finished / "tiny.kdz", "student-2": finished / "tiny-student-2.kdz"}
    assert found.bundles == files
    assert found.to_json()["bundles"] == {role: str(path) for role, path in files.items()}
    assert {gate.row for gate in found.gates} == {row.key for row in found.rows if "onnxruntime" in row.key}
    assert len(found.gates) == 6  # parity of four files, and the int8 drop of two
    for role, path in files.items():
        info = bundle.inspect(path)
        assert info.name == path.stem
        assert info.provenance["engine"].startswith(f"{role}-onnxruntime")
        exported = {name for name in info.provenance["artifacts"] if name.startswith("export/")}
        assert exported == {f"export/{role}.float32.onnx", f"export/{role}.int8-x86-avx2.onnx"}


def test_each_bundle_predicts_by_itself(finished: Path) -> None:
    found = results.read(finished)
    assert len(found.samples) == 3
    for path in found.bundles.values():
        with Predictor.open(path) as predictor:
            assert len(predictor.predict(found.samples)) == 3


def test_the_report_shows_all_of_them(finished: Path) -> None:
    data = results.report_data(finished)
    assert [data.shipped, *data.also_shipped] == [
        bundle.inspect(path).provenance["engine"] for path in results.read(finished).bundles.values()
    ]
    assert data.paths["bundle of student-2"] == str(finished / "tiny-student-2.kdz")
    assert set(data.epochs) == {"alone", "alone-2", "student", "student-2"}
    text = (finished / "report.html").read_text(encoding="utf-8")
    assert text.count('<div class="verdict">') == 2


def test_a_student_whose_export_is_wrong_keeps_no_other_from_shipping(folder: Path) -> None:
    gate = {"name": "parity", "row": "student-onnxruntime-float32", "bound": "b", "value": "v", "passed": False}
    artifacts.write_json(folder / gates.FILE, {"schema_version": 1, "gates": [gate]})
    heard = Heard()
    with events.listening(heard):
        left = bundles.Bundle().run(pipeline.reopen(folder))
    assert [path.name for path in left if path.suffix == ".kdz"] == ["tiny-student-2.kdz"]
    assert list(results.read(folder).bundles) == ["student-2"]
    assert results.report_data(folder).shipped is None
    assert len(results.report_data(folder).also_shipped) == 1
    assert any("No engine of student holds the gates" in line for line in heard.lines)


def test_the_verb_packs_each_student_or_the_one_that_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def kdeploy(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["kdeploy", *words])
        return _run(), *capsys.readouterr()

    for name in ("tiny.kdz", "tiny-student-2.kdz"):
        (folder / name).unlink()
    status, out, _ = kdeploy("bundle", str(folder), "--json", "-")
    assert status == 0
    listed = json.loads(out)
    assert [Path(one["bundle"]).name for one in listed["bundles"]] == ["tiny.kdz", "tiny-student-2.kdz"]
    assert listed["bundle"] == listed["bundles"][0]["bundle"]
    (folder / "tiny-student-2.kdz").unlink()
    assert kdeploy("bundle", str(folder), "--engine", "student-2-onnxruntime-int8")[0] == 0
    assert bundle.inspect(folder / "tiny-student-2.kdz").engine == "onnxruntime-int8"
    status, _, said = kdeploy("bundle", str(folder), "--out", str(folder / "one.kdz"))
    assert status == 2
    assert "has 2 students, a bundle each: name one with --engine beside --out." in said
