from __future__ import annotations

import json
import logging
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from kdeploy.artifacts import sha256_file
from kdeploy.engines.base import Preprocessing
from kdeploy.engines.tensorrt.graph import read, refuse_uint8_before_cast
from kdeploy.errors import UserError
from kdeploy.export.to_onnx import export
from kdeploy.parity import compare
from kdeploy.recipe.schema import ExportSpec
from kdeploy.runtime.preprocess import preprocess
from tests.export.networks import (
    CLASSES,
    cifar_classifier,
    export_to,
    onnx_run,
    random_images,
    small_classifier,
    torch_logits,
)

SHAPE = (32, 32, 3)
SMALL = (8, 8, 1)
THREE = ("a", "b", "c")


def test_what_is_said_of_the_file(in_graph):
    _, exported = in_graph
    assert (exported.opset, exported.input_name, exported.input_dtype) == (18, "images", "uint8")
    assert exported.output == "probabilities"
    assert exported.sha256 == sha256_file(exported.path)
    assert [file.name for file in exported.path.parent.iterdir()] == ["model.float32.onnx"]  # no external data


def test_input_and_output_leave_the_batch_open(in_graph):
    graph = onnx.load(in_graph[1].path).graph
    (images,), (probabilities,) = graph.input, graph.output
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [size.dim_param or size.dim_value for size in images.type.tensor_type.shape.dim] == ["batch", 32, 32, 3]
    assert [size.dim_param or size.dim_value for size in probabilities.type.tensor_type.shape.dim] == ["batch", 10]


def test_the_graph_holds_the_network_and_nothing_else(in_graph):
    # Nine convolutions (two of them shortcuts) with the batch norms folded in; seven ReLUs; three residual sums and
    # one of the preprocessing; no shape arithmetic.
    operators = Counter(node.op_type for node in onnx.load(in_graph[1].path).graph.node)
    assert operators == {
        "Transpose": 1, "Cast": 1, "Mul": 1, "Conv": 9, "Relu": 7, "Add": 4, "ReduceMean": 1, "Gemm": 1, "Softmax": 1
    }  # fmt: skip


def test_uint8_images_are_read_by_a_cast_alone(in_graph):
    """TensorRT takes them nowhere else."""
    path = in_graph[1].path
    refuse_uint8_before_cast(read(path), path)


def test_names_are_those_of_the_modules(in_graph):
    graph = onnx.load(in_graph[1].path).graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    assert {"network.conv1/Conv", "network.layer2.0.shortcut.0/Conv", "network.layer3.0/Add", "network.fc/Gemm"} <= set(
        names
    )
    assert {"network.layer1.0.conv2.weight", "network.fc.bias"} <= {tensor.name for tensor in graph.initializer}


def test_no_debugging_metadata_is_shipped(in_graph):
    classifier, exported = in_graph
    model = onnx.load(exported.path)
    for part in [*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        assert not part.metadata_props
        assert not part.doc_string
    assert not model.graph.value_info
    content = exported.path.read_bytes()
    assert b".py" not in content  # stack traces
    assert b"pkg.torch" not in content
    weights = 4 * sum(parameter.numel() for parameter in classifier.parameters())
    assert exported.path.stat().st_size < weights + 8_000


def test_metadata_tells_what_a_runtime_needs(in_graph):
    metadata = {entry.key: entry.value for entry in onnx.load(in_graph[1].path).metadata_props}
    assert tuple(json.loads(metadata["kdeploy.classes"])) == CLASSES
    assert Preprocessing.model_validate_json(metadata["kdeploy.preprocessing"]).height == 32
    assert metadata["kdeploy.output"] == "probabilities"
    assert metadata["kdeploy.run"] == "test"


def test_it_computes_what_torch_computes(in_graph):
    classifier, exported = in_graph
    record = compare(
        torch_logits(classifier),
        onnx_run(exported.path),
        random_images(32, SHAPE),
        batches=[1, 2, 32],
        candidate_output="probabilities",
    )
    assert record.passed, record.reasons
    assert record.relative_difference < 1e-5
    np.testing.assert_allclose(onnx_run(exported.path)(random_images(4, SHAPE)).sum(axis=1), 1, rtol=1e-5)


def test_outside_takes_what_the_devices_preprocessing_gives(tmp_path):
    classifier = small_classifier(class_map=(2, 0))
    spec = ExportSpec(preprocess="outside")
    exported = export_to(classifier, tmp_path / "model.onnx", SMALL, ("c", "a"), spec=spec)
    assert (exported.input_dtype, exported.output) == ("float32", "logits")
    entries = {entry.key: entry.value for entry in onnx.load(exported.path).metadata_props}
    preprocessing = Preprocessing.model_validate_json(entries["kdeploy.preprocessing"])
    run = onnx_run(exported.path)
    record = compare(
        torch_logits(classifier),
        lambda images: run(preprocess(images, preprocessing)),
        random_images(8, SMALL),
        batches=[1, 2, 8],
    )
    assert record.compared == "logits"
    assert record.passed, record.reasons


def test_the_classes_order_goes_along(tmp_path):
    images = random_images(4, SMALL)
    exported = export_to(small_classifier(class_map=(2, 0, 1)), tmp_path / "mapped.onnx", SMALL, ("c", "a", "b"))
    expected = torch.softmax(torch.from_numpy(torch_logits(small_classifier())(images)), 1).numpy()[:, [2, 0, 1]]
    np.testing.assert_allclose(onnx_run(exported.path)(images), expected, rtol=1e-5)


class PooledChannelsLast(nn.Module):
    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x, 1)


def test_channels_last_weights_leave_no_trace_and_are_left_alone(tmp_path):
    classifier = small_classifier(PooledChannelsLast()).to(memory_format=torch.channels_last).train()
    exported = export_to(classifier, tmp_path / "model.onnx", SMALL, THREE)
    operators = {node.op_type for node in onnx.load(exported.path).graph.node}
    assert not operators & {"Gather", "Range", "Shape"}
    assert classifier.training
    assert classifier.network.conv.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("opset", [21, 23])
def test_newer_opsets_are_written_as_asked(opset, tmp_path):
    classifier = small_classifier()
    exported = export_to(classifier, tmp_path / "model.onnx", SMALL, THREE, spec=ExportSpec(opset=opset))
    assert exported.opset == opset
    images = random_images(4, SMALL)
    assert compare(
        torch_logits(classifier), onnx_run(exported.path), images, batches=[4], candidate_output="probabilities"
    ).passed


def test_the_exporter_keeps_quiet(tmp_path, capfd, caplog, recwarn):
    level = logging.getLogger("torch").level
    export_to(small_classifier(), tmp_path / "model.onnx", SMALL, THREE)
    assert capfd.readouterr() == ("", "")
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert list(recwarn) == []
    assert logging.getLogger("torch").level == level


@pytest.mark.parametrize("opset", [14, 17])
def test_older_opsets_are_lowered_to(opset, tmp_path, capfd):
    # Left to itself the exporter warns, writes 18, and succeeds.
    classifier = small_classifier()
    exported = export_to(classifier, tmp_path / "model.onnx", SMALL, THREE, spec=ExportSpec(opset=opset))
    assert exported.opset == opset
    images = random_images(4, SMALL)
    assert compare(
        torch_logits(classifier), onnx_run(exported.path), images, batches=[1, 4], candidate_output="probabilities"
    ).passed
    assert capfd.readouterr() == ("", "")


class OnlyIn18(nn.Module):
    def forward(self, x):
        return nn.functional.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True)


def test_what_has_no_form_in_an_older_opset_is_refused(tmp_path):
    target = tmp_path / "model.onnx"
    with pytest.raises(UserError, match=r"written in opset 18 and has no form in opset 17: .*") as caught:
        export_to(small_classifier(OnlyIn18()), target, SMALL, THREE, spec=ExportSpec(opset=17))
    assert "\n" not in str(caught.value)
    assert not target.exists()


class NoSuchOperator(nn.Module):
    def forward(self, x):
        return torch.linalg.qr(x)[0]


class Branch(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class FixedBatch(nn.Module):
    def forward(self, x):
        return x.reshape(2, 4, 8, 8)


@pytest.mark.parametrize(
    ("middle", "message"),
    [
        (NoSuchOperator(), r"ONNX has no form of what network.middle \(NoSuchOperator\) does: .*linalg_qr"),
        (Branch(), r"tracing it stopped in network.middle \(Branch\): Could not guard on data-dependent expression"),
        (FixedBatch(), r"its forward works for one batch size only; take it from the input, as in x.shape\[0\]"),
    ],
    ids=["operator", "control-flow", "batch"],
)
def test_what_cannot_be_exported_is_named_with_its_module(middle, message, tmp_path, capfd):
    with pytest.raises(UserError, match=message) as caught:
        export_to(small_classifier(middle), tmp_path / "model.onnx", SMALL, THREE)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_another_number_of_classes_than_the_data_have(tmp_path):
    with pytest.raises(UserError, match=r"The network gives \[3\] outputs an image, and the data have 2 classes"):
        export_to(small_classifier(), tmp_path / "model.onnx", SMALL, ("a", "b"))


def test_preprocessing_that_is_not_the_classifiers_is_a_bug(tmp_path):
    wrong = Preprocessing(in_graph=True, height=8, width=8, channels=1, mean=(0.1,), std=(0.2,))
    with pytest.raises(ValueError, match="the classifier's mean"):
        export(
            small_classifier(),
            tmp_path / "model.onnx",
            shape=SMALL,
            spec=ExportSpec(),
            classes=THREE,
            preprocessing=wrong,
        )


def test_option_a_shortcuts_keep_parity(tmp_path):
    classifier = cifar_classifier(shortcut="A")
    exported = export_to(classifier, tmp_path / "model.onnx", SHAPE, CLASSES)
    record = compare(
        torch_logits(classifier),
        onnx_run(exported.path),
        random_images(8, SHAPE),
        batches=[1, 8],
        candidate_output="probabilities",
    )
    assert record.passed, record.reasons
