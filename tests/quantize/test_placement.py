"""What the schemes for other people's compilers promise of a graph."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, checker

from kdeploy.quantize.graph import constants, producers
from kdeploy.quantize.running import Running
from kdeploy.quantize.schemes import SCHEMES
from kdeploy.quantize.static import calibrate
from tests.quantize import small

IMAGES = small.images(16)


def made(folder, scheme, **how):
    return calibrate(small.saved(folder, **how), scheme=SCHEMES[scheme], images=IMAGES).int8()


def maker(model, name):
    return producers(model.graph).get(name)


class TestTensorRT:
    @pytest.fixture
    def model(self, tmp_path):
        return made(tmp_path, "tensorrt")

    def test_every_zero_point_is_zero_and_int8(self, model):
        values = constants(model.graph)
        pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
        assert pairs
        for node in pairs:
            assert values[node.input[2]].dtype == np.int8
            assert not values[node.input[2]].any()

    def test_weights_and_biases_stay_float32(self, model):
        values = constants(model.graph)
        for layer in [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]:
            pair = [maker(model, layer.input[1])]
            pair.append(maker(model, pair[0].input[0]))
            assert [node.op_type for node in pair] == ["DequantizeLinear", "QuantizeLinear"]
            assert values[pair[1].input[0]].dtype == np.float32
            assert len(values[pair[1].input[1]]) == values[pair[1].input[0]].shape[0]  # a scale a channel
            for bias in layer.input[2:3]:
                assert values[bias].dtype == np.float32

    def test_a_residual_addition_has_one_pair_and_not_behind_its_own_convolution(self, model):
        (addition,) = [node for node in model.graph.node if node.op_type == "Add"]
        assert sorted(maker(model, name).op_type for name in addition.input) == ["Conv", "DequantizeLinear"]
        (skip,) = [name for name in addition.input if maker(model, name).op_type == "DequantizeLinear"]
        assert maker(model, maker(model, maker(model, skip).input[0]).input[0]).op_type == "Relu"

    def test_each_taker_has_a_pair_of_its_own(self, model):
        takers = [name for node in model.graph.node for name in node.input]
        for node in model.graph.node:
            if node.op_type == "DequantizeLinear":
                assert takers.count(node.output[0]) == 1

    def test_it_is_onnx_and_answers_like_float32(self, model):
        checker.check_model(model, full_check=True)
        expected, found = Running(small.network()).run(IMAGES), Running(model).run(IMAGES)
        assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.999


class TestQnn:
    @pytest.fixture
    def model(self, tmp_path):
        return made(tmp_path, "qnn")

    def test_no_operator_up_to_the_logits_takes_float32(self, model):
        for node in model.graph.node:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                continue
            data = [name for name in node.input if name]
            assert {maker(model, name).op_type for name in data} == {"DequantizeLinear"}, node.op_type

    def test_activations_are_uint8_and_only_convolutions_have_a_scale_a_channel(self, model):
        values = constants(model.graph)
        for node in model.graph.node:
            if node.op_type == "QuantizeLinear":
                assert values[node.input[2]].dtype == np.uint8
        for layer in [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]:
            weight = maker(model, layer.input[1])
            assert values[weight.input[0]].dtype == np.int8
            assert (values[weight.input[1]].size > 1) == (layer.op_type == "Conv")

    def test_it_answers_like_float32(self, model):
        checker.check_model(model, full_check=True)
        expected, found = Running(small.network()).run(IMAGES), Running(model).run(IMAGES)
        assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("name", SCHEMES)
def test_the_highest_opset_of_a_scheme_was_tried(name, tmp_path):
    model = made(tmp_path, name, opset=SCHEMES[name].highest_opset)
    checker.check_model(model, full_check=True)
    assert np.isfinite(Running(model).run(IMAGES)).all()
    assert any(tensor.data_type == TensorProto.INT8 for tensor in model.graph.initializer)
