from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from kdeploy import engines
from kdeploy.engines._checks import seeded_images
from kdeploy.engines.openvino import GRAPH, WEIGHTS, OpenVino, OpenVinoSession
from kdeploy.errors import GateFailed, Unavailable, UserError
from tests.engines import models

pytest.importorskip("openvino", reason="OpenVINO has no package for this platform")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return models.save_classifier(tmp_path / "source.onnx")


@pytest.fixture
def folder(source: Path, tmp_path: Path) -> Path:
    OpenVino().build(source, tmp_path / "engine", models.manifest())
    return tmp_path / "engine"


def test_a_built_engine_answers_as_numpy_does(folder: Path) -> None:
    with engines.open_engine(folder, threads=1) as session:
        for count in (1, 5, 1, 3):
            images = models.images(count, seed=count)
            outputs = session.run(images)
            assert outputs.dtype == np.float32
            np.testing.assert_allclose(outputs, models.probabilities(images), atol=1e-6)


def test_an_answer_is_the_callers_own(folder: Path) -> None:
    with engines.open_engine(folder, threads=1) as session:
        first = session.run(models.images(1, seed=1))
        kept = first.copy()
        session.run(models.images(1, seed=2))
        np.testing.assert_array_equal(first, kept)


def test_images_that_are_not_contiguous_are_taken(folder: Path) -> None:
    images = models.images(4)[::2]
    with engines.open_engine(folder, threads=1) as session:
        np.testing.assert_allclose(session.run(images), models.probabilities(images), atol=1e-6)


def test_the_manifest_names_both_files_and_the_check(folder: Path) -> None:
    manifest = engines.read_manifest(folder)
    assert manifest.engine == "openvino"
    assert set(manifest.files) == {GRAPH, WEIGHTS}
    assert manifest.details["check"]["max_relative_difference"] < 1e-5
    assert sum(manifest.details["operators"]["f32"].values()) > 0
    assert not {"bf16", "f16"} & set(manifest.details["operators"])


def test_outputs_that_depart_from_the_graph_fail_the_gate(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = OpenVinoSession.run
    monkeypatch.setattr(OpenVinoSession, "run", lambda self, images: 1 - honest(self, images))
    with pytest.raises(GateFailed, match="OpenVINO's outputs differ from the graph's"):
        OpenVino().build(source, tmp_path / "engine", models.manifest())
    assert not (tmp_path / "engine" / "manifest.json").exists()


def test_describe_tells_devices_and_threads(folder: Path) -> None:
    with engines.open_engine(folder, threads=1) as session:
        described = session.describe()
    assert described["devices"] == ["CPU"]
    assert described["threads"] == 1


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_cut_file_is_refused_in_one_sentence(source: Path, tmp_path: Path, share: float) -> None:
    content = source.read_bytes()
    source.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"^OpenVINO \S+ can't read .*source\.onnx: [^\n]+\.$"):
        OpenVino().build(source, tmp_path / "engine", models.manifest())


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*absent\.onnx"):
        OpenVino().build(tmp_path / "absent.onnx", tmp_path / "engine", models.manifest())


def test_a_manifest_of_another_input_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"takes uint8 'image', but its manifest says float32 'image'|can't run"):
        OpenVino().build(source, tmp_path / "engine", models.manifest(in_graph=False))


def test_a_batch_that_the_file_does_not_take_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = models.save_classifier(tmp_path / "one.onnx", batch=4)
    OpenVino().build(path, tmp_path / "engine", models.manifest())
    with (
        engines.open_engine(tmp_path / "engine", threads=1) as session,
        pytest.raises(UserError, match=r"can't run .* \[2, 8, 8, 1\]: [^\n]+\.$"),
    ):
        session.run(models.images(2))


def test_a_changed_weights_file_is_noticed(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match="is not the one that was built"):
        engines.open_engine(folder, threads=1)


def test_without_its_package_it_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(Unavailable, match=r"pip install 'kdeploy\[openvino\]'"):
        engines.require(OpenVino())


def test_the_check_sees_the_same_images_each_time() -> None:
    first, second = seeded_images(models.manifest()), seeded_images(models.manifest())
    np.testing.assert_array_equal(first, second)
