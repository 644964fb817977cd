from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from kdeploy.quantize.bias_correction import channel_means, correct_biases, give_biases
from kdeploy.quantize.running import Running
from kdeploy.quantize.schemes import SCHEMES
from kdeploy.quantize.static import calibrate
from tests.quantize import small

IMAGES = small.images(32)


def planted(model, name, steps):
    """Shift an int32 bias by so many of its steps."""
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    shifted = numpy_helper.to_array(tensor) + np.asarray(steps, dtype=np.int32)
    tensor.CopyFrom(numpy_helper.from_array(shifted, name))
    return model


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = small.saved(tmp_path_factory.mktemp("small"))
    return calibrate(path, scheme=SCHEMES["x86-vnni"], images=IMAGES)


def test_a_planted_shift_is_removed(plain):
    quantized, float32 = plain.int8(), plain.float32
    shifted = planted(plain.int8(), "b2_quantized", np.arange(8) * 400)
    corrected = correct_biases(shifted, float32, IMAGES)
    layer = next(node for node in float32.graph.node if node.op_type == "Conv" and "w2" in node.input)
    wanted = channel_means(float32, layer.output[0], IMAGES)
    name = next(node for node in quantized.graph.node if node.name == layer.name).output[0]
    before, after = (channel_means(model, name, IMAGES) - wanted for model in (shifted, corrected))
    assert np.abs(before).max() > 0.05
    assert np.abs(after).max() < 1e-3


def test_every_layers_mean_is_float32s(tmp_path):
    path = small.saved(tmp_path, outlier=6.0)
    made = {
        correct: calibrate(path, scheme=SCHEMES["x86-avx2"], images=IMAGES, bias_correction=correct)
        for correct in (False, True)
    }
    for node in [node for node in made[True].float32.graph.node if node.op_type in ("Conv", "Gemm")]:
        wanted = channel_means(made[True].float32, node.output[0], IMAGES)
        gaps = {}
        for correct, calibrated in made.items():
            output = next(one for one in calibrated.int8().graph.node if one.name == node.name).output[0]
            gaps[correct] = np.abs(channel_means(calibrated.int8(), output, IMAGES) - wanted).max()
        assert gaps[True] < 1e-3
        assert gaps[True] < gaps[False]
    outputs = {correct: Running(calibrated.int8()).run(IMAGES) for correct, calibrated in made.items()}
    expected = Running(made[True].float32).run(IMAGES)
    errors = {correct: np.square(found - expected).mean() for correct, found in outputs.items()}
    assert errors[True] <= errors[False]


def test_layers_without_a_bias_are_given_zeros():
    given = give_biases(small.network())
    (conv,) = [node for node in given.graph.node if "w3" in node.input]
    bias = next(tensor for tensor in given.graph.initializer if tensor.name == conv.input[2])
    np.testing.assert_array_equal(numpy_helper.to_array(bias), np.zeros(8, dtype=np.float32))
    np.testing.assert_array_equal(Running(given).run(IMAGES), Running(small.network()).run(IMAGES))
