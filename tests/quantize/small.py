"""A real network of four layers, made without torch: convolution, residual block, hard-swish, pool, classifier."""

from __future__ import annotations

import numpy as np
from onnx import checker, numpy_helper, parser

TEXT = """(float[N, 3, 12, 12] x) => (float[N, 5] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    r = Relu (a)
    c = Conv <pads = [1, 1, 1, 1]> (r, w2, b2)
    s = Add (c, r)
    h = HardSwish (s)
    d = Conv <group = 8, pads = [1, 1, 1, 1]> (h, w3)
    p = GlobalAveragePool (d)
    f = Flatten (p)
    y = Gemm <transB = 1> (f, w4, b4)
}"""


def network(seed=0, opset=18, outlier=1.0):
    """outlier: by how much one channel of the first convolution is larger than the others."""
    random = np.random.default_rng(seed)
    w1 = random.normal(size=(8, 3, 3, 3)) / 5
    w1[0] *= outlier
    arrays = {
        "w1": w1,
        "b1": random.normal(size=8) / 5,
        "w2": random.normal(size=(8, 8, 3, 3)) / 8,
        "b2": random.normal(size=8) / 5,
        "w3": random.normal(size=(8, 1, 3, 3)) / 3,
        "w4": random.normal(size=(5, 8)) * 2,
        "b4": np.zeros(5),
    }
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["" : {opset}]> g {TEXT}')
    for name, value in arrays.items():
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    checker.check_model(model, full_check=True)
    return model


def images(count=32, seed=1):
    return np.random.default_rng(seed).normal(size=(count, 3, 12, 12)).astype(np.float32)


def saved(folder, **how):
    path = folder / "small.onnx"
    path.write_bytes(network(**how).SerializeToString())
    return path
