from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from kdeploy.artifacts import sha256_file
from kdeploy.errors import UserError
from kdeploy.models import create
from kdeploy.models.classifier import Classifier
from kdeploy.parity import compare
from kdeploy.quantize.ranges import METHODS
from kdeploy.quantize.schemes import SCHEMES
from kdeploy.quantize.static import quantize
from kdeploy.recipe.schema import ExportSpec, NetworkSpec
from tests.export.networks import export_to, onnx_run, random_images

SHAPE = (32, 32, 3)
VNNI = SCHEMES["x86-vnni"]


@pytest.fixture(scope="module")
def quantized(float_model, tmp_path_factory):
    target = tmp_path_factory.mktemp("int8") / "model.int8-x86-vnni.onnx"
    return quantize(float_model, target, scheme=VNNI, images=random_images(32, SHAPE), method="minmax")


def test_every_product_is_quantised_and_both_ends_are_not(quantized):
    assert quantized.quantized == {"Conv": 9, "Add": 3, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}
    assert quantized.kept_float == {"Transpose": 1, "Cast": 1, "Mul": 1, "Add": 1, "Softmax": 1}
    assert (quantized.opset, quantized.scheme) == (18, VNNI)
    assert quantized.sha256 == sha256_file(quantized.path)


def test_types_are_the_schemes(quantized):
    graph = onnx.load(quantized.path).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    weights = [tensor for name, tensor in tensors.items() if name.endswith("weight_quantized")]
    assert len(weights) == 10
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.INT8}
    quantizers = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert {tensors[node.input[2]].data_type for node in quantizers} == {onnx.TensorProto.UINT8}
    stem = next(node for node in graph.node if node.name == "network.conv1.weight_DequantizeLinear")
    assert list(tensors[stem.input[1]].dims) == [16]  # a scale for each output channel


def test_the_file_is_small_clean_and_alone(quantized, float_model):
    assert quantized.path.stat().st_size < 0.4 * float_model.stat().st_size
    assert [file.name for file in quantized.path.parent.iterdir()] == [quantized.path.name]
    model = onnx.load(quantized.path)
    assert not model.graph.value_info
    assert model.metadata_props == onnx.load(float_model).metadata_props
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_the_runtime_fuses_all_of_it_into_integer_kernels(quantized, tmp_path):
    # What this engine is for: no float island between the first convolution and the logits.
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(quantized.path, options, providers=["CPUExecutionProvider"])
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert operators["QLinearConv"] == 9
    assert operators["QLinearAdd"] == 3
    assert operators["QLinearGlobalAveragePool"] == operators["QGemm"] == 1
    assert operators["QuantizeLinear"] == 1  # behind the preprocessing
    assert operators["Conv"] == operators["Gemm"] == operators["Relu"] == operators["DequantizeLinear"] == 0


@pytest.mark.parametrize(
    ("name", "method"),
    [*((name, "minmax") for name in SCHEMES), *(("x86-vnni", method) for method in METHODS if method != "minmax")],
)
def test_every_scheme_and_method_answers_like_float32(name, method, float_model, tmp_path):
    target = tmp_path / "model.onnx"
    quantize(float_model, target, scheme=SCHEMES[name], images=random_images(16, SHAPE), method=method)
    record = compare(
        onnx_run(float_model),
        onnx_run(target),
        random_images(32, SHAPE, seed=1),
        batches=[1, 32],
        reference_output="probabilities",
        candidate_output="probabilities",
        tolerance=None,
    )
    assert record.cosine_similarity > 0.99
    assert record.top1_agreement > 0.9


def test_reduce_range_keeps_weights_to_seven_bits(float_model, tmp_path):
    result = quantize(float_model, tmp_path / "m.onnx", scheme=SCHEMES["x86-avx2"], images=random_images(4, SHAPE))
    for tensor in onnx.load(result.path).graph.initializer:
        if tensor.name.endswith("weight_quantized"):
            assert np.abs(onnx.numpy_helper.to_array(tensor).astype(int)).max() <= 64


def test_it_keeps_quiet_and_leaves_nothing_behind(float_model, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    before = (list(root.handlers), list(root.filters))
    (tmp_path / "out").mkdir()
    images = random_images(4, SHAPE)
    quantize(float_model, tmp_path / "out" / "m.onnx", scheme=VNNI, images=images, method="entropy")
    assert capfd.readouterr() == ("", "")
    assert (list(root.handlers), list(root.filters)) == before
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["m.onnx", "out"]


@pytest.fixture(scope="module")
def digits():
    """scikit-learn's digits as uint8 `[N, 8, 8, 1]`: the first 1400 to learn from, the rest held out."""
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) * 15.9375).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(labels))
    return images[order], labels[order]


@pytest.fixture(scope="module")
def trained(digits):
    """ResNet-8 at half width after three epochs on digits."""
    images, labels = digits
    torch.manual_seed(0)
    network = create(NetworkSpec(model="resnet8", width=0.5), classes=10, channels=1)
    classifier = Classifier(network, (0.3,), (0.35,))
    inputs = torch.from_numpy(images[:1400]).permute(0, 3, 1, 2).float() / 255
    targets = torch.from_numpy(labels[:1400])
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=5e-3)
    for _ in range(3):
        for batch in torch.randperm(1400).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(classifier(inputs[batch]), targets[batch]).backward()
            optimizer.step()
    return classifier.eval()


@pytest.mark.parametrize("preprocess", ["in-graph", "outside"])
def test_a_trained_network_keeps_its_accuracy(preprocess, trained, digits, tmp_path):
    images, labels = digits
    names = tuple("0123456789")
    model = export_to(trained, tmp_path / "f.onnx", (8, 8, 1), names, spec=ExportSpec(preprocess=preprocess)).path
    if preprocess == "outside":
        images = np.ascontiguousarray(
            ((images / np.float32(255) - np.float32(0.3)) / np.float32(0.35)).transpose(0, 3, 1, 2)
        )
    result = quantize(model, tmp_path / "q.onnx", scheme=VNNI, images=images[:128])
    assert result.quantized["Conv"] == 9
    held_out, answers = images[1400:], labels[1400:]
    accuracy = {
        path.name: float((onnx_run(path)(held_out).argmax(axis=1) == answers).mean()) for path in (model, result.path)
    }
    assert accuracy["f.onnx"] > 0.93
    assert accuracy["q.onnx"] >= accuracy["f.onnx"] - 0.01


def test_logits_are_not_rounded_to_256_values(trained, digits, tmp_path):
    images, _ = digits
    model = export_to(trained, tmp_path / "f.onnx", (8, 8, 1), tuple("0123456789")).path
    result = quantize(model, tmp_path / "q.onnx", scheme=VNNI, images=images[:64])
    assert len(np.unique(onnx_run(result.path)(images))) > 1000


@pytest.mark.parametrize("opset", [21, 23])
def test_the_highest_opset_of_the_schemes_was_tried(opset, trained, digits, tmp_path):
    images, _ = digits
    spec = ExportSpec(opset=opset)
    model = export_to(trained, tmp_path / "f.onnx", (8, 8, 1), tuple("0123456789"), spec=spec).path
    result = quantize(model, tmp_path / "q.onnx", scheme=VNNI, images=images[:64])
    assert result.opset == opset
    agreement = onnx_run(model)(images[1400:]).argmax(1) == onnx_run(result.path)(images[1400:]).argmax(1)
    assert agreement.mean() > 0.98


def test_what_is_refused(float_model, quantized, tmp_path):
    images = random_images(4, SHAPE)
    target = tmp_path / "never.onnx"
    with pytest.raises(UserError, match=r"There is no calibration method 'minmx'\. Did you mean 'minmax'\?"):
        quantize(float_model, target, scheme=VNNI, images=images, method="minmx")
    with pytest.raises(UserError, match=r"is written in opset 18, and the int8 scheme x86-vnni takes up to 17"):
        quantize(float_model, target, scheme=replace(VNNI, highest_opset=17), images=images)
    with pytest.raises(UserError, match="is quantised already"):
        quantize(quantized.path, target, scheme=VNNI, images=images)
    with pytest.raises(UserError, match=r"takes uint8 \[images, 32, 32, 3\]"):
        quantize(float_model, target, scheme=VNNI, images=images[:, :16])
    half = tmp_path / "half.onnx"
    half.write_bytes(float_model.read_bytes()[: float_model.stat().st_size // 2])
    with pytest.raises(UserError, match=r"half.onnx .* is not an ONNX file, or was cut short"):
        quantize(half, target, scheme=VNNI, images=images)
    assert not target.exists()
