"""Which node parts from torch, and what its module is called."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from kdeploy.export.bisecting import traced_values, tracing_divergence
from kdeploy.export.intermediate import nodes_of, values_of
from kdeploy.export.to_onnx import translate
from kdeploy.parity.divergence import Divergence, Node, first_divergence
from kdeploy.recipe.schema import ExportSpec
from tests.export.networks import OtherwiseWhenTraced, random_images, small_classifier

SHAPE = (32, 32, 3)
SMALL = (8, 8, 1)


@pytest.fixture(scope="module")
def traced(in_graph):
    classifier, exported = in_graph
    images = random_images(3, SHAPE)
    return exported.path, images, traced_values(translate(classifier, SHAPE, ExportSpec()), images)


def test_every_node_of_a_sound_file_agrees(traced):
    path, images, values = traced
    nodes = nodes_of(path)
    assert first_divergence(nodes, values, values_of(path, images)) is None
    named = {name for node in nodes for name in node.outputs} & set(values)
    assert len(named) >= 20, "all but the output, which the exporter calls by its own name, is compared"


@pytest.mark.parametrize("module", ["network.layer2.0.conv1", "network.fc"])
def test_a_weight_that_was_changed_is_found_by_its_module(module, traced, tmp_path):
    path, images, values = traced
    model = onnx.load(path)
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == f"{module}.weight")
    changed = numpy_helper.to_array(weight).copy()
    changed[0] *= 1.5
    weight.CopyFrom(numpy_helper.from_array(changed, weight.name))
    broken = tmp_path / "broken.onnx"
    onnx.save(model, broken)
    found = first_divergence(nodes_of(broken), values, values_of(broken, images))
    assert found is not None
    assert found.module == module
    assert found.node == f"{module}/{found.operator}"
    assert found.relative_difference > 1e-3
    assert f"of the module {module}" in found.sentence()


def test_a_forward_that_is_traced_otherwise_than_it_runs_is_named():
    translation = translate(small_classifier(OtherwiseWhenTraced()), SMALL, ExportSpec())
    images = random_images(2, SMALL)
    found = tracing_divergence(translation, images, traced_values(translation, images), tolerance=1e-4)
    assert found is not None
    assert (found.module, found.operator) == ("network.middle", "OtherwiseWhenTraced")
    assert found.relative_difference == pytest.approx(1 / 3, rel=1e-3)


def test_an_honest_trace_agrees_with_every_module():
    translation = translate(small_classifier(), SMALL, ExportSpec())
    images = random_images(2, SMALL)
    assert tracing_divergence(translation, images, traced_values(translation, images), tolerance=1e-4) is None


def test_shapes_and_nan_count_as_parting():
    nodes = [Node(name="a", operator="Relu", outputs=("x",)), Node(name="m/Conv", operator="Conv", outputs=("y",))]
    sound = {"x": np.ones(3, np.float32), "y": np.ones(2, np.float32)}
    for broken in (np.ones(3, np.float32), np.array([1, np.nan], np.float32)):
        found = first_divergence(nodes, sound, {**sound, "y": broken})
        assert found == Divergence(
            node="m/Conv", operator="Conv", module="m", tensor="y", relative_difference=None, tolerance=1e-4, compared=1
        )
    assert first_divergence(nodes, {"x": sound["x"]}, {"y": sound["y"]}) is None, "nothing in common"
