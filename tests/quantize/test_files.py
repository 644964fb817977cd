from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdeploy.artifacts import sha256_file
from kdeploy.errors import UserError
from kdeploy.quantize.files import load_model, opset_version, save_model


def model(nodes=None, initializers=()):
    nodes = nodes or [helper.make_node("Add", ["x", "w"], ["y"])]
    weight = numpy_helper.from_array(np.ones(400, dtype=np.float32), "w")
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 400])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 400])],
        list(initializers) or [weight],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_a_file_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "model.onnx"
    assert save_model(model(), path) == sha256_file(path)
    assert load_model(path) == model()
    assert opset_version(load_model(path)) == 18
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def refused(path):
    with pytest.raises(UserError) as caught:
        load_model(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_missing_and_empty_files_folders_and_text(tmp_path):
    assert "There is no file" in refused(tmp_path / "absent.onnx")
    assert "can't be read: Is a directory" in refused(tmp_path)
    (tmp_path / "empty.onnx").touch()
    assert "holds no ONNX graph" in refused(tmp_path / "empty.onnx")
    (tmp_path / "text.onnx").write_text("not a model at all, but text")
    assert "is not an ONNX file, or was cut short" in refused(tmp_path / "text.onnx")


def test_a_file_cut_anywhere_is_refused_or_whole(tmp_path):
    content = model().SerializeToString()
    path = tmp_path / "cut.onnx"
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        refused(path)


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("NoSuchOperator", ["x"], ["y"])],
        [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Add", ["a", "w"], ["b"])],
        [helper.make_node("Add", ["x"], ["y"])],
    ],
    ids=["unknown operator", "cycle", "too few inputs"],
)
def test_graphs_that_are_no_graphs(nodes, tmp_path):
    path = tmp_path / "bad.onnx"
    path.write_bytes(model(nodes).SerializeToString())
    assert "is not valid ONNX" in refused(path)


@pytest.mark.parametrize("size", [401, 10**12, -5], ids=["too large", "huge", "negative"])
def test_tensors_that_claim_another_size_than_they_have(size, tmp_path):
    weight = numpy_helper.from_array(np.ones(400, dtype=np.float32), "w")
    weight.dims[0] = size
    path = tmp_path / "lying.onnx"
    path.write_bytes(model(initializers=[weight]).SerializeToString())
    assert "is not valid ONNX" in refused(path)


def test_a_graph_without_the_standard_operators(tmp_path):
    foreign = model([helper.make_node("Magic", ["x"], ["y"], domain="com.example")])
    foreign.opset_import[0].domain = "com.example"
    path = tmp_path / "foreign.onnx"
    path.write_bytes(foreign.SerializeToString())
    assert "is not written in ONNX's standard operators" in refused(path)


def external(location):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[400], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "link", "a/../../secret", ""], ids=repr)
def test_external_data_outside_the_folder_are_refused(location, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(1600))
    (folder / "link").symlink_to(tmp_path / "secret")
    path = folder / "model.onnx"
    path.write_bytes(model(initializers=[external(location)]).SerializeToString())
    assert "point outside its folder" in refused(path)


def test_external_data_that_are_missing_or_too_short(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(model(initializers=[external("weights.bin")]).SerializeToString())
    assert "weights.bin, which is missing" in refused(path)
    (tmp_path / "weights.bin").write_bytes(bytes(100))
    assert "is not valid ONNX" in refused(path)
    (tmp_path / "weights.bin").write_bytes(bytes(1600))
    assert numpy_helper.to_array(load_model(path).graph.initializer[0]).shape == (400,)


def test_external_data_inside_the_folder_are_read(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(model(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    loaded = load_model(path)
    np.testing.assert_array_equal(numpy_helper.to_array(loaded.graph.initializer[0]), np.ones(400, np.float32))
