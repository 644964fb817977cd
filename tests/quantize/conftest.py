from __future__ import annotations

import pytest


@pytest.fixture(scope="package")
def float_model(tmp_path_factory):
    """ResNet-8 for CIFAR with random weights, exported with its preprocessing."""
    from tests.export.networks import CLASSES, cifar_classifier, export_to  # torch: most tests here need none

    target = tmp_path_factory.mktemp("float32") / "model.float32.onnx"
    return export_to(cifar_classifier(), target, (32, 32, 3), CLASSES, metadata={"kdeploy.run": "test"}).path
