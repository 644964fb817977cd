from __future__ import annotations

import sys

import numpy as np
import pytest
from onnx import TensorProto, checker, load, numpy_helper

from kdeploy.errors import UserError
from kdeploy.parity import compare
from kdeploy.quantize.half import to_float16
from kdeploy.quantize.running import Running
from tests.quantize import small

IMAGES = small.images(16)


def types_of(model, operator):
    """The types of the weights that an operator takes."""
    tensors = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return {tensors[name] for node in model.graph.node if node.op_type == operator for name in node.input[1:2]}


def test_weights_are_halves_and_answers_stay(tmp_path):
    path = small.saved(tmp_path)
    before = list(sys.path)
    made = to_float16(path, tmp_path / "small.float16.onnx")
    assert sys.path == before
    model = load(made.path)
    checker.check_model(model, full_check=True)
    assert types_of(model, "Conv") == types_of(model, "Gemm") == {TensorProto.FLOAT16}
    assert made.path.stat().st_size < 0.75 * path.stat().st_size
    assert {value.type.tensor_type.elem_type for value in [*model.graph.input, *model.graph.output]} == {
        TensorProto.FLOAT
    }
    assert (made.kept_float32, made.opset) == ((), 18)
    record = compare(Running(small.network()).run, Running(model).run, IMAGES, batches=[1, 16], tolerance=1e-2)
    assert record.passed, record.reasons


def test_named_operators_stay_float32(tmp_path):
    made = to_float16(small.saved(tmp_path), tmp_path / "m.onnx", keep_float32=["Gemm"])
    model = load(made.path)
    assert types_of(model, "Gemm") == {TensorProto.FLOAT}
    assert types_of(model, "Conv") == {TensorProto.FLOAT16}
    assert len(made.kept_float32) == 1
    assert np.isfinite(Running(model).run(IMAGES)).all()


def test_a_weight_that_no_half_can_hold_keeps_its_layer_in_float32(tmp_path):
    network = small.network()
    tensor = next(tensor for tensor in network.graph.initializer if tensor.name == "w4")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1e5), "w4"))
    (tmp_path / "large.onnx").write_bytes(network.SerializeToString())
    made = to_float16(tmp_path / "large.onnx", tmp_path / "m.onnx")
    assert [name.partition("/")[0] for name in made.kept_float32] == ["Gemm"]
    expected, found = Running(network).run(IMAGES), Running(load(made.path)).run(IMAGES)
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.02 * np.abs(expected).max())


def test_an_operator_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"has no operator 'Cnov' to keep in float32. Did you mean 'Conv'\?"):
        to_float16(small.saved(tmp_path), tmp_path / "m.onnx", keep_float32=["Cnov"])
    assert not (tmp_path / "m.onnx").exists()
