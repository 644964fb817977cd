from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdeploy import bundle, engines
from kdeploy.engines.openvino import MODEL, OpenVino, OpenVinoSession
from kdeploy.errors import GateFailed, Unavailable, UserError
from kdeploy.runtime import Predictor
from tests.engines import models

openvino = pytest.importorskip("openvino", reason="OpenVINO has no package for this platform")
_CAPABILITIES = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


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


def test_the_manifest_names_its_file_and_the_check(folder: Path) -> None:
    manifest = engines.read_manifest(folder)
    assert manifest.engine == "openvino"
    assert set(manifest.files) == {MODEL}
    assert manifest.details["check"]["max_relative_difference"] < 1e-5
    assert manifest.details["operators"]["float32"]["FullyConnected"] == 1
    assert not {"bfloat16", "float16"} & set(manifest.details["operators"])


def test_outputs_that_depart_from_the_graph_fail_the_gate(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = OpenVinoSession.run
    monkeypatch.setattr(OpenVinoSession, "run", lambda self, images: 1 - honest(self, images))
    with pytest.raises(GateFailed, match="OpenVINO's outputs differ from the graph's"):
        OpenVino().build(source, tmp_path / "engine", models.manifest())
    assert not (tmp_path / "engine" / "manifest.json").exists()


def test_describe_tells_what_really_runs(folder: Path) -> None:
    with engines.open_engine(folder, threads=1) as session:
        described = session.describe()
    assert described["openvino"] == OpenVino().available().version
    assert described["devices"] == ["CPU"]
    assert described["threads"] == 1
    assert described["operators"]["float32"]["FullyConnected"] == 1
    assert described["size_bytes"] == engines.read_manifest(folder).size_bytes


def test_a_single_thread_is_the_callers_own(folder: Path) -> None:
    for threads, streams in ((1, 0), (2, 1)):
        with engines.open_engine(folder, threads=threads) as session:
            described = session.describe()
            assert (described["threads"], described["streams"]) == (threads, streams)
            images = models.images(2)
            np.testing.assert_allclose(session.run(images), models.probabilities(images), atol=1e-6)


def test_int8_runs_in_integers(tmp_path: Path) -> None:
    manifest = OpenVino().build(
        models.save_quantised(tmp_path / "int8.onnx"), tmp_path / "engine", models.manifest(precision="int8")
    )
    assert manifest.details["operators"]["uint8"]["FullyConnected"] == 1
    assert manifest.details["check"]["cosine_similarity"] > 0.999


def test_a_float32_graph_is_not_called_int8(source: Path, tmp_path: Path) -> None:
    with pytest.raises(GateFailed, match=r"of the 1 convolutions .* OpenVINO compiled, 0 are in int8"):
        OpenVino().build(source, tmp_path / "engine", models.manifest(precision="int8"))
    assert not (tmp_path / "engine" / "manifest.json").exists()


@pytest.mark.skipif("BF16" not in _CAPABILITIES, reason="this processor computes no bfloat16")
def test_bfloat16_is_taken_only_by_name(source: Path, tmp_path: Path) -> None:
    manifest = OpenVino().build(source, tmp_path / "engine", models.manifest(precision="bfloat16"))
    assert manifest.details["operators"]["bfloat16"]["FullyConnected"] == 1
    assert manifest.details["check"]["max_relative_difference"] > 1e-5


@pytest.mark.skipif("FP16" in _CAPABILITIES, reason="this processor computes float16")
def test_a_precision_that_the_processor_lacks_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="OpenVINO computes no float16 on this processor"):
        OpenVino().build(source, tmp_path / "engine", models.manifest(precision="float16"))


def test_the_newest_opset_is_taken_and_a_newer_one_refused(tmp_path: Path) -> None:
    newest = OpenVino.highest_opset or 0
    taken = models.save_classifier(tmp_path / "newest.onnx", opset=newest)
    OpenVino().build(taken, tmp_path / "engine", models.manifest(opset=newest))
    newer = models.save_classifier(tmp_path / "newer.onnx", opset=newest + 1)
    with pytest.raises(UserError, match=rf"newer\.onnx has opset {newest + 1}, and the engine openvino takes {newest}"):
        OpenVino().build(newer, tmp_path / "other", models.manifest(opset=newest + 1))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_cut_file_is_refused_in_one_sentence(source: Path, tmp_path: Path, share: float) -> None:
    content = source.read_bytes()
    source.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"^ONNX Runtime \S+ can't open .*source\.onnx: [^\n]+\.$"):
        OpenVino().build(source, tmp_path / "engine", models.manifest())


def test_a_file_that_openvino_cannot_read_is_refused_in_one_sentence(folder: Path) -> None:
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes()[:-50])
    with pytest.raises(UserError, match=r"^OpenVINO \S+ can't open .*model\.onnx: [^\n]+\.$"):
        OpenVino().open(folder, models.manifest(model=MODEL), threads=1)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*absent\.onnx"):
        OpenVino().build(tmp_path / "absent.onnx", tmp_path / "engine", models.manifest())


def test_a_manifest_of_another_input_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes uint8 'image', but its manifest says float32 'image'"):
        OpenVino().build(source, tmp_path / "engine", models.manifest(in_graph=False))


def test_a_file_of_one_batch_is_checked_at_it_and_refuses_others(tmp_path: Path) -> None:
    path = models.save_classifier(tmp_path / "three.onnx", batch=3)
    manifest = OpenVino().build(path, tmp_path / "engine", models.manifest())
    assert manifest.details["check"]["inputs"] == "3 seeded random images"
    with (
        engines.open_engine(tmp_path / "engine", threads=1) as session,
        pytest.raises(UserError, match=r"can't run .* \[2, 8, 8, 1\]: [^\n]+\.$"),
    ):
        session.run(models.images(2))


def test_a_bundle_of_it_predicts(folder: Path, tmp_path: Path) -> None:
    bundle.pack(folder, tmp_path / "it.kdz", name="it", provenance={})
    images = models.images(1)
    Image.fromarray(images[0, :, :, 0]).save(tmp_path / "one.png")
    with Predictor.open(tmp_path / "it.kdz") as predictor:
        (found,) = predictor.predict([tmp_path / "one.png"])
    expected = models.probabilities(images)[0]
    assert found.class_name == models.CLASSES[expected.argmax()]
    assert found.probability == pytest.approx(expected.max(), abs=1e-6)


def test_a_changed_file_is_noticed(folder: Path) -> None:
    content = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match="is not the one that was built"):
        engines.open_engine(folder, threads=1)


def test_without_its_package_it_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(Unavailable, match=r"pip install 'kdeploy\[openvino\]'"):
        engines.require(OpenVino())
