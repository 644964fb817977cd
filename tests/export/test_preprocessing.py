"""The very bytes of JPEG files, through a training's preprocessing and through the exported graph."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdeploy.errors import UserError
from kdeploy.export.intermediate import values_of
from kdeploy.recipe.schema import ExportSpec
from kdeploy.sources.decode import Picture, decode, open_image
from kdeploy.torchvision_compat import import_torchvision
from tests.export.networks import CLASSES, cifar_classifier, export_to, onnx_run, small_classifier, torch_logits

SHAPE = (32, 32, 3)
SIZES = [(32, 32), (57, 41), (200, 300), (33, 480), (20, 24), (31, 64)]
"""Height and width: as it is, smaller by odd factors, much smaller, enlarged, one of each."""


def jpeg(height: int, width: int, seed: int) -> bytes:
    """Smooth colours with hard edges, as JPEG keeps them."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    pixels = np.kron(blocks, np.ones((8, 8, 1), np.uint8))[:height, :width]
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=90)
    return content.getvalue()


@pytest.fixture(scope="module")
def files():
    return [jpeg(*size, seed) for seed, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def as_in_training(files):
    """Decoded and resized by the room that trainings read their images with: uint8 `[N, 32, 32, 3]`."""
    pictures = [Picture(f"file {number}", partial(open_image, content)) for number, content in enumerate(files)]
    images, _ = decode(pictures, SHAPE[0], "stop")
    return images


@pytest.fixture(scope="module")
def resizing(tmp_path_factory) -> Path:
    """The graph that takes images of any size, and resizes them itself."""
    target = tmp_path_factory.mktemp("resizing") / "model.onnx"
    return export_to(cifar_classifier(), target, SHAPE, CLASSES, spec=ExportSpec(size="resize")).path


def raw(content: bytes) -> np.ndarray:
    """What any decoder gives of a file: uint8 `[1, H, W, 3]`."""
    return np.array(Image.open(io.BytesIO(content)).convert("RGB"))[None]


def test_the_graph_answers_what_training_would_have_seen(files, as_in_training, resizing):
    logits = torch_logits(cifar_classifier())(as_in_training)
    expected = torch.softmax(torch.from_numpy(logits), 1).numpy()
    run = onnx_run(resizing)
    found = np.concatenate([run(raw(content)) for content in files])
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)  # nothing to resize
    np.testing.assert_allclose(found, expected, atol=2e-3)  # some pixels are off by one of 255


def test_its_pixels_are_pillows_within_one_of_255(files, as_in_training, resizing):
    found = np.concatenate([values_of(resizing, raw(content))["preprocessing/resized"] for content in files])
    difference = np.abs(found.astype(int) - as_in_training.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.05
    assert (difference[0] == 0).all()


def test_its_pixels_are_torchvisions(files, resizing):
    functional = pytest.importorskip("torchvision.transforms.v2.functional") if import_torchvision() else None
    for content in files:
        image = torch.from_numpy(raw(content)).permute(0, 3, 1, 2)
        expected = functional.resize(image, list(SHAPE[:2]), antialias=True).permute(0, 2, 3, 1).numpy()
        found = values_of(resizing, raw(content))["preprocessing/resized"]
        assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def test_images_of_the_right_size_go_through_a_fixed_graph_alike(in_graph):
    classifier, exported = in_graph
    content = [jpeg(32, 32, seed) for seed in range(4)]
    pictures = [Picture("a file", partial(open_image, each)) for each in content]
    images, _ = decode(pictures, None, "stop")
    expected = torch.softmax(torch.from_numpy(torch_logits(classifier)(images)), 1).numpy()
    found = onnx_run(exported.path)(np.concatenate([raw(each) for each in content]))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("preprocess", ["in-graph", "outside"])
def test_open_sizes_run_at_any_size(preprocess, tmp_path):
    classifier = small_classifier()
    spec = ExportSpec(size="open", preprocess=preprocess)
    run = onnx_run(export_to(classifier, tmp_path / "model.onnx", (8, 8, 1), ("a", "b", "c"), spec=spec).path)
    for height, width in ((8, 8), (20, 12)):
        images = np.random.default_rng(0).integers(0, 256, (2, height, width, 1), dtype=np.uint8)
        logits = torch.from_numpy(torch_logits(classifier)(images))
        if preprocess == "in-graph":
            np.testing.assert_allclose(run(images), torch.softmax(logits, 1).numpy(), rtol=1e-3, atol=1e-6)
        else:
            planes = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
            ready = ((planes - classifier.mean) / classifier.std).numpy()
            np.testing.assert_allclose(run(ready), logits.numpy(), rtol=1e-3, atol=1e-4)


def test_a_network_of_one_size_cannot_leave_it_open(tmp_path):
    class OneSize(torch.nn.Module):
        def forward(self, x):
            return x.reshape(x.shape[0], 4, 8, 8)

    with pytest.raises(UserError, match=r"The network can't be exported: .*forward works for one (height|width) only"):
        export_to(
            small_classifier(OneSize()),
            tmp_path / "model.onnx",
            (8, 8, 1),
            ("a", "b", "c"),
            spec=ExportSpec(size="open"),
        )


def test_resizing_wants_raw_images_and_opset_18():
    for wrong in ({"preprocess": "outside"}, {"opset": 17}):
        with pytest.raises(ValueError, match="size: resize"):
            ExportSpec(size="resize", **wrong)
