"""Small classifiers to export, and torch's own answers to compare with."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from torch import nn

from kdeploy.engines.base import Preprocessing
from kdeploy.export.to_onnx import export
from kdeploy.models import create
from kdeploy.models.classifier import Classifier
from kdeploy.recipe.schema import ExportSpec, NetworkSpec

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "lorry ⛟")
MEAN, STD = (0.49, 0.48, 0.44), (0.25, 0.24, 0.26)


def cifar_classifier(**options):
    """ResNet-8 whose batch norms have seen something, so that folding them wrongly shows."""
    torch.manual_seed(0)
    network = create(NetworkSpec(model="resnet8", options=options), classes=10, channels=3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return Classifier(network, MEAN, STD).eval()


class Small(nn.Module):
    """A convolution, something in the middle, and a classifier of three classes."""

    def __init__(self, middle=None):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.middle = middle or nn.ReLU()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.middle(self.conv(x)).mean((2, 3)))


def tiny(classes, channels):
    """A network that is exported in an instant, as a recipe names it."""
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
    )


class OtherwiseWhenTraced(nn.Module):
    """What no exporter can get right."""

    def forward(self, x):
        return x * 2 if torch.compiler.is_exporting() else x * 3


def otherwise(classes, channels):
    """A network whose export fails parity."""
    return nn.Sequential(tiny(classes, channels), OtherwiseWhenTraced())


def small_classifier(middle=None, class_map=None):
    torch.manual_seed(0)
    return Classifier(Small(middle), (0.5,), (0.2,), class_map).eval()


def export_to(classifier, target, shape, classes, *, spec=None, metadata=None):
    spec = spec or ExportSpec()
    height, width, channels = shape
    preprocessing = Preprocessing(
        in_graph=spec.preprocess == "in-graph",
        height=height,
        width=width,
        channels=channels,
        mean=tuple(classifier.mean.flatten().tolist()),
        std=tuple(classifier.std.flatten().tolist()),
    )
    return export(
        classifier, target, shape=shape, spec=spec, classes=classes, preprocessing=preprocessing, metadata=metadata
    )


def random_images(count, shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def torch_logits(classifier):
    """The classifier as a callable from uint8 `[B, H, W, C]` to logits."""

    @torch.no_grad()
    def run(images):
        return classifier(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).numpy()

    return run


def onnx_run(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {session.get_inputs()[0].name: images})[0]
