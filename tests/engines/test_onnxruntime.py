from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from kdeploy import engines
from kdeploy.engines._onnx_file import weight_files
from kdeploy.engines.onnxruntime import MODEL, OnnxRuntime
from kdeploy.errors import GateFailed, UserError
from tests.engines import models


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return models.save_classifier(tmp_path / "source.onnx")


def test_a_built_engine_answers_as_numpy_does(tmp_path: Path) -> None:
    folder = models.build(tmp_path / "engine")
    with engines.open_engine(folder, threads=1) as session:
        for count in (1, 5, 1, 3):  # changing shapes bind new buffers
            images = models.images(count, seed=count)
            outputs = session.run(images)
            assert outputs.dtype == np.float32
            np.testing.assert_allclose(outputs, models.probabilities(images), atol=1e-6)


def test_an_answer_is_the_callers_own(tmp_path: Path) -> None:
    with engines.open_engine(models.build(tmp_path / "engine"), threads=1) as session:
        session.run(models.images(1))
        first = session.run(models.images(1, seed=1))
        kept = first.copy()
        session.run(models.images(1, seed=2))
        np.testing.assert_array_equal(first, kept)


def test_images_that_are_not_contiguous_are_taken(tmp_path: Path) -> None:
    images = models.images(4)[::2]
    with engines.open_engine(models.build(tmp_path / "engine"), threads=1) as session:
        for _ in range(2):
            np.testing.assert_allclose(session.run(images), models.probabilities(images), atol=1e-6)


def test_the_manifest_records_the_check_against_the_graph(tmp_path: Path) -> None:
    manifest = engines.read_manifest(models.build(tmp_path / "engine"))
    assert manifest.details["check"]["max_relative_difference"] < 1e-5
    assert manifest.details["check"]["cosine_similarity"] > 0.999999


@pytest.fixture
def departs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime whose optimised kernels compute with other weights."""
    wrong = models.save_classifier(tmp_path / "wrong.onnx")
    model = onnx.load(wrong)
    model.graph.initializer[0].raw_data = (-models.weights()).tobytes()
    onnx.save(model, wrong)
    honest = OnnxRuntime._opening
    monkeypatch.setattr(OnnxRuntime, "_opening", lambda self, path, *how, **more: honest(wrong, *how, **more))


@pytest.mark.usefixtures("departs")
def test_a_runtime_that_departs_from_the_graph_fails_the_gate(source: Path, tmp_path: Path) -> None:
    with pytest.raises(GateFailed, match="ONNX Runtime's outputs differ from the graph's"):
        OnnxRuntime().build(source, tmp_path / "engine", models.manifest())
    assert not (tmp_path / "engine" / "manifest.json").exists()


@pytest.mark.usefixtures("departs")
def test_int8_kernels_that_depart_from_the_graph_are_a_warning(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = models.manifest(precision="int8", scheme="x86-vnni")
    manifest = OnnxRuntime().build(source, tmp_path / "engine", known)
    assert "its scheme x86-vnni may be meant for another one" in caplog.text
    assert manifest.details["check"]["cosine_similarity"] < 0.99


def test_describe_names_the_provider_and_its_nodes(tmp_path: Path) -> None:
    import onnxruntime

    with engines.open_engine(models.build(tmp_path / "engine"), threads=1) as session:
        described = session.describe()
    assert described["providers"] == ["CPUExecutionProvider"]
    assert described["threads"] == 1
    if hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"):
        assert described["nodes"] == {"CPUExecutionProvider": 5}  # Cast, Div, Flatten, MatMul, Softmax


def test_an_older_runtime_tells_no_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdeploy.engines._onnxruntime_session.tells_assignment", lambda: False)
    with engines.open_engine(models.build(tmp_path / "engine"), threads=1) as session:
        assert "nodes" not in session.describe()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_cut_file_is_refused_in_one_sentence(source: Path, tmp_path: Path, share: float) -> None:
    content = source.read_bytes()
    source.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"^ONNX Runtime \S+ can't open .*source\.onnx: [^\n]+\.$"):
        OnnxRuntime().build(source, tmp_path / "engine", models.manifest())
    assert not (tmp_path / "engine" / "manifest.json").exists()


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.onnx"
    path.write_bytes(b"\x89PNG\r\n" + bytes(1000))
    with pytest.raises(UserError, match="can't open"):
        OnnxRuntime().open_file(path, 1)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*absent\.onnx"):
        OnnxRuntime().build(tmp_path / "absent.onnx", tmp_path / "engine", models.manifest())


def test_a_manifest_of_another_input_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes uint8 'image', but its manifest says float32 'image'"):
        OnnxRuntime().build(source, tmp_path / "engine", models.manifest(in_graph=False))


def test_a_network_with_two_inputs_is_refused(tmp_path: Path) -> None:
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "ab"]
    output = helper.make_tensor_value_info("c", TensorProto.FLOAT, [1, 4])
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "add", inputs, [output])
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "add.onnx")
    with pytest.raises(UserError, match="has 2 inputs"):
        OnnxRuntime().open_file(tmp_path / "add.onnx", 1)


def test_a_batch_that_the_file_does_not_take_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = models.save_classifier(tmp_path / "one.onnx", batch=1)
    with OnnxRuntime().open_file(path, 1) as session, pytest.raises(UserError, match=r"can't run .* \[2, 8, 8, 1\]"):
        session.run(models.images(2))


def test_the_newest_opset_is_taken_and_a_newer_one_refused(tmp_path: Path) -> None:
    newest = OnnxRuntime.highest_opset or 0
    path = models.save_classifier(tmp_path / "newest.onnx", opset=newest)
    OnnxRuntime().build(path, tmp_path / "engine", models.manifest(opset=newest))
    newer = models.save_classifier(tmp_path / "newer.onnx", opset=newest + 1)
    with pytest.raises(
        UserError, match=rf"newer\.onnx has opset 27, and the engine onnxruntime takes {newest} at most"
    ):
        OnnxRuntime().build(newer, tmp_path / "other", models.manifest(opset=newest + 1))
    with pytest.raises(
        UserError, match=rf"can't open .*: it has opset 27, and {newest} is the highest that it takes\.$"
    ):
        OnnxRuntime().open_file(newer, 1)


def test_the_shipped_file_is_the_exported_one(source: Path, tmp_path: Path) -> None:
    OnnxRuntime().build(source, tmp_path / "engine", models.manifest())
    assert (tmp_path / "engine" / MODEL).read_bytes() == source.read_bytes()


def save_finder(path: Path) -> Path:
    """Where a number is above 0: as a detector, it finds now more and now less."""
    nodes = [helper.make_node("Relu", ["x"], ["above"]), helper.make_node("NonZero", ["above"], ["found"])]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])
    output = helper.make_tensor_value_info("found", TensorProto.INT64, [4, "count"])
    graph = helper.make_graph(nodes, "finder", [given], [output])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_outputs_whose_size_depends_on_the_data(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    with OnnxRuntime().open_file(save_finder(tmp_path / "finder.onnx"), 1) as session:
        for share in (0.9, 0.1, 0.0, 0.5):
            images = (draw.random((1, 3, 8, 8)) < share).astype(np.float32)
            assert session.run(images).shape == (4, int(images.sum()))
            parts = session.run_in_parts(images)
            assert parts.outputs.shape == (4, int(images.sum()))
            assert parts.copies_ns is None


def test_a_first_output_that_is_no_tensor_is_refused_in_one_sentence(tmp_path: Path) -> None:
    nodes = [helper.make_node("SplitToSequence", ["x"], ["parts"], axis=1)]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    output = helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "splitter", [given], [output])
    path = tmp_path / "splitter.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    with OnnxRuntime().open_file(path, 1) as session, pytest.raises(UserError, match="'parts', is a list; kdeploy"):
        session.run(np.zeros((1, 4), np.float32))


def test_weights_beside_the_file_are_found_without_onnx(tmp_path: Path) -> None:
    path = models.save_classifier(tmp_path / "one.onnx")
    assert weight_files(path) == []
    onnx.save(onnx.load(path), tmp_path / "two.onnx", save_as_external_data=True, location="two.data", size_threshold=0)
    assert weight_files(tmp_path / "two.onnx") == [tmp_path / "two.data"]
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    assert weight_files(tmp_path / "bad.onnx") == []
    with pytest.raises(UserError, match="There is no file"):
        weight_files(tmp_path / "absent.onnx")
