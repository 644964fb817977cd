from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
from onnx import checker

from kdeploy.quantize.hard_activations import lay_open
from kdeploy.quantize.rewrites import name_nodes, prepare
from kdeploy.quantize.running import Running
from kdeploy.quantize.schemes import SCHEMES
from kdeploy.quantize.static import calibrate
from tests.quantize import small
from tests.quantize.test_rewrites import IMAGES, graph, run


def test_hard_activations_laid_open_compute_the_same():
    for text in ("HardSwish (x)", "HardSigmoid (x)", "HardSigmoid <alpha = 0.1, beta = 0.3> (x)"):
        model = name_nodes(graph(f"(float[N, 2, 5, 4] x) => (float[N, 2, 5, 4] y) {{ y = {text} }}"))
        opened = lay_open(model)
        assert not {node.op_type for node in opened.graph.node} & {"HardSwish", "HardSigmoid"}
        np.testing.assert_allclose(run(opened, 4 * IMAGES), run(model, 4 * IMAGES), rtol=1e-6, atol=1e-6)


def test_a_hard_swish_between_convolutions_is_no_island_of_float32(tmp_path):
    images = small.images()
    calibrated = calibrate(small.saved(tmp_path), scheme=SCHEMES["x86-vnni"], images=images)
    made = calibrated.int8()
    checker.check_model(made, full_check=True)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert operators["QLinearConv"] == 3
    assert (operators["QLinearAdd"], operators["QLinearMul"]) == (2, 1)  # the factor went into a scale
    assert operators["QuantizeLinear"] == 1
    assert operators["DequantizeLinear"] == operators["HardSigmoid"] == operators["Mul"] == 0
    expected, found = Running(prepare(small.network())).run(images), Running(made).run(images)
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.999
