from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdeploy.bundle import pack
from kdeploy.engines.base import Manifest, Preprocessing
from kdeploy.errors import UserError
from kdeploy.runtime import Predictor
from kdeploy.runtime.predict import softmax

onnx = pytest.importorskip("onnx")
MEAN, STD = 0.25, 0.5


def write_onnx(path: Path, *, in_graph: bool) -> None:
    """A network of two pixels: its logits are the pixels, normalised."""
    from onnx import TensorProto, helper

    def constant(name, value):
        return helper.make_tensor(name, TensorProto.FLOAT, [len(value)] if value else [], value or [0.0])

    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 2])
    if in_graph:
        declared = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 1, 2, 1])
        nodes = [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["float", "scale"], ["unit"]),
            helper.make_node("Sub", ["unit", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "std"], ["normal"]),
            helper.make_node("Reshape", ["normal", "shape"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["output"], axis=-1),
        ]
        constants = [shape, constant("scale", [255.0]), constant("mean", [MEAN]), constant("std", [STD])]
    else:
        declared = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 1, 2])
        nodes, constants = [helper.make_node("Reshape", ["image", "shape"], ["output"])], [shape]
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "pixels", [declared], [output], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def make_bundle(folder: Path, *, in_graph: bool, classes: tuple[str, ...] = ("left", "right")) -> Path:
    engine = folder / "engine"
    engine.mkdir()
    write_onnx(engine / "model.onnx", in_graph=in_graph)
    content = (engine / "model.onnx").read_bytes()
    manifest = Manifest(
        engine="onnxruntime",
        precision="float32",
        model="model.onnx",
        files={"model.onnx": hashlib.sha256(content).hexdigest()},
        size_bytes=len(content),
        input_name="image",
        input_dtype="uint8" if in_graph else "float32",
        output="probabilities" if in_graph else "logits",
        preprocessing=Preprocessing(in_graph=in_graph, height=1, width=2, channels=1, mean=(MEAN,), std=(STD,)),
        classes=classes,
        parameters=None,
        macs=None,
        source="0" * 64,
        opset=18,
    )
    (engine / "manifest.json").write_text(manifest.model_dump_json())
    pack(engine, folder / "pixels.kdz", name="pixels", provenance={})
    return folder / "pixels.kdz"


def picture(path: Path, left: int, right: int) -> Path:
    Image.fromarray(np.array([[left, right]], dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize("in_graph", [True, False], ids=["preprocessing in the graph", "preprocessing outside"])
def test_predicts(tmp_path, in_graph):
    bundle = make_bundle(tmp_path, in_graph=in_graph)
    bright = picture(tmp_path / "bright-right.png", 51, 255)
    dark = picture(tmp_path / "bright-left.png", 255, 0)
    with Predictor.open(bundle) as predictor:
        first, second = predictor.predict([bright, dark])
    expected = 1 / (1 + np.exp(-(1.0 - 0.2) / STD))
    assert (first.path, first.class_name) == (bright, "right")
    assert first.probability == pytest.approx(expected, rel=1e-5)
    assert [name for name, _ in first.top] == ["right", "left"]
    assert sum(probability for _, probability in first.top) == pytest.approx(1.0, abs=1e-6)
    assert second.class_name == "left"


def test_the_unpacked_files_go_when_it_is_closed(tmp_path, monkeypatch):
    bundle = make_bundle(tmp_path, in_graph=True)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    with Predictor.open(bundle):
        assert list((tmp_path / "tmp").iterdir())
    assert not list((tmp_path / "tmp").iterdir())


def test_one_flipped_byte_is_refused(tmp_path):
    bundle = make_bundle(tmp_path, in_graph=True)
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2] ^= 1
    bundle.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        Predictor.open(bundle)


def test_a_missing_picture_is_named(tmp_path):
    with (
        Predictor.open(make_bundle(tmp_path, in_graph=True)) as predictor,
        pytest.raises(UserError, match=r"none\.png"),
    ):
        predictor.predict([tmp_path / "none.png"])


def test_an_engine_with_other_classes_than_its_manifest(tmp_path):
    bundle = make_bundle(tmp_path, in_graph=True, classes=("left",))
    with Predictor.open(bundle) as predictor, pytest.raises(UserError, match=r"2 outputs .* 1 classes"):
        predictor.predict([picture(tmp_path / "a.png", 0, 1)])


def test_softmax_does_not_overflow():
    np.testing.assert_allclose(softmax(np.array([1000.0, 1000.0], dtype=np.float32)), [0.5, 0.5])
    np.testing.assert_allclose(softmax(np.log(np.array([[1.0, 3.0]], dtype=np.float32))), [[0.25, 0.75]], rtol=1e-6)
