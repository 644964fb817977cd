from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from kdeploy.errors import UserError
from kdeploy.export.logits import write_logits_graph
from kdeploy.parity import compare
from kdeploy.recipe.schema import ExportSpec
from tests.export.networks import export_to, onnx_run, random_images, small_classifier, torch_logits

SHAPE = (8, 8, 1)


def test_tiny_logits_are_compared_where_probabilities_show_nothing(tmp_path):
    classifier = small_classifier()
    with torch.no_grad():
        classifier.network.fc.weight *= 1e-9
        classifier.network.fc.bias.zero_()
    exported = export_to(classifier, tmp_path / "model.onnx", SHAPE, ("a", "b", "c")).path
    write_logits_graph(exported, tmp_path / "logits.onnx")
    images = random_images(8, SHAPE)
    reference = torch_logits(classifier)
    assert not compare(reference, onnx_run(exported), images, batches=[8], candidate_output="probabilities").passed
    record = compare(reference, onnx_run(tmp_path / "logits.onnx"), images, batches=[1, 8])
    assert record.passed, record.reasons
    assert record.max_abs_difference < 1e-12


def test_it_is_the_same_graph_without_the_softmax(in_graph, tmp_path):
    _, exported = in_graph
    target = tmp_path / "logits.onnx"
    write_logits_graph(exported.path, target)
    whole, cut = onnx.load(exported.path).graph, onnx.load(target).graph
    assert list(cut.node) == list(whole.node)[:-1]
    assert cut.output[0].type == whole.output[0].type
    images = random_images(3, (32, 32, 3))
    powers = np.exp(onnx_run(target)(images))
    np.testing.assert_allclose(onnx_run(exported.path)(images), powers / powers.sum(axis=1, keepdims=True), rtol=1e-4)


def test_a_graph_that_gives_logits_already(tmp_path):
    spec = ExportSpec(preprocess="outside")
    exported = export_to(small_classifier(), tmp_path / "model.onnx", SHAPE, ("a", "b", "c"), spec=spec).path
    with pytest.raises(UserError, match="does not end in a softmax"):
        write_logits_graph(exported, tmp_path / "logits.onnx")
