"""A student with members leaves as plain networks side by side."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from kdeploy.models import create
from kdeploy.models.batch_ensemble import BatchEnsemble, MemberLayer
from kdeploy.models.classifier import Classifier
from kdeploy.parity import compare
from kdeploy.quantize.schemes import SCHEMES
from kdeploy.quantize.static import quantize
from kdeploy.recipe.schema import ExportSpec, NetworkSpec
from tests.export.networks import export_to, onnx_run, random_images, torch_logits

SHAPE = (16, 16, 3)
CLASSES = ("a", "b", "c")
MEMBERS = 2


def classifier() -> Classifier:
    torch.manual_seed(0)
    network = create(NetworkSpec(model="resnet8", width=0.5), classes=4, channels=3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    made = BatchEnsemble(network, MEMBERS, torch.Generator().manual_seed(0))
    return Classifier(made, (0.49, 0.48, 0.44), (0.25, 0.24, 0.26), (3, 0, 2)).eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory):
    target = tmp_path_factory.mktemp("ensemble") / "model.float32.onnx"
    made = classifier()
    return made, export_to(made, target, SHAPE, CLASSES)


def test_the_graph_holds_plain_networks_and_the_mean_of_what_they_say(exported) -> None:
    operators = Counter(node.op_type for node in onnx.load(exported[1].path).graph.node)
    assert {kind: operators[kind] for kind in ("Conv", "Relu", "Gemm", "Mul", "BatchNormalization")} == {
        "Conv": 9 * MEMBERS,  # as many as the plain network has, batch norms folded in
        "Relu": 7 * MEMBERS,
        "Gemm": MEMBERS,
        "Mul": 1,  # of the preprocessing
        "BatchNormalization": 0,
    }


def test_it_computes_what_torch_computes_at_any_batch(exported) -> None:
    made, file = exported
    record = compare(
        torch_logits(made),
        onnx_run(file.path),
        random_images(16, SHAPE),
        batches=[1, 2, 16],
        candidate_output="probabilities",
    )
    assert record.passed, record.reasons
    assert record.relative_difference < 1e-5
    assert sum(isinstance(module, MemberLayer) for module in made.modules()) == 10, "the classifier is not touched"


def test_outside_it_gives_the_logits_of_the_ensemble(tmp_path) -> None:
    made = classifier()
    file = export_to(made, tmp_path / "model.onnx", SHAPE, CLASSES, spec=ExportSpec(preprocess="outside")).path
    inputs = np.random.default_rng(0).standard_normal((3, 3, 16, 16)).astype(np.float32)
    with torch.no_grad():
        expected = made.network(torch.from_numpy(inputs))[:, [3, 0, 2]].numpy()
    np.testing.assert_allclose(onnx_run(file)(inputs), expected, rtol=1e-4, atol=1e-5)


def test_int8_quantises_every_product_and_nothing_behind_the_logits(exported, tmp_path) -> None:
    made = quantize(
        exported[1].path,
        tmp_path / "model.int8.onnx",
        scheme=SCHEMES["x86-vnni"],
        images=random_images(32, SHAPE),
        method="minmax",
    )
    assert made.quantized["Conv"] == 9 * MEMBERS
    assert made.quantized["Gemm"] == MEMBERS
    behind = {"LogSoftmax", "ReduceLogSumExp", "Sub", "Softmax"}
    assert behind <= set(made.kept_float)
    assert not behind.union({"Concat", "Unsqueeze"}) & set(made.quantized)
    images = random_images(8, SHAPE, seed=3)
    found, expected = onnx_run(made.path)(images), onnx_run(exported[1].path)(images)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert np.abs(found - expected).max() < 0.1
