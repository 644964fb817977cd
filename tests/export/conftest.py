from __future__ import annotations

import pytest

from tests.export.networks import CLASSES, cifar_classifier, export_to


@pytest.fixture(scope="package")
def in_graph(tmp_path_factory):
    """A ResNet-8 for CIFAR with random weights, exported with its preprocessing: the classifier and the file."""
    classifier = cifar_classifier()
    target = tmp_path_factory.mktemp("export") / "model.float32.onnx"
    return classifier, export_to(classifier, target, (32, 32, 3), CLASSES, metadata={"kdeploy.run": "test"})
