"""One model outside a run: its images, its files, its engines and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdeploy import engines, parity
from kdeploy.artifacts import read_json
from kdeploy.errors import UserError
from kdeploy.recipe.schema import NetworkSpec, NormalizeSpec
from kdeploy.stages import model_images
from kdeploy.stages.model import PRECISIONS, Asked, export_network, normalisation, role_of
from kdeploy.stages.model_rows import measure

SHAPE = (3, 16, 12)
TINY = NetworkSpec(model="python:tests.export.networks:tiny")


def pictures(folder: Path, count: int, seed: int = 0, *, gray: bool = False) -> None:
    """JPEG files of different sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        height, width = random.integers(13, 40, 2)
        blocks = random.integers(0, 256, (4, 4) if gray else (4, 4, 3), dtype=np.uint8)
        pixels = np.kron(blocks, np.ones((10, 10) if gray else (10, 10, 1), np.uint8))[:height, :width]
        Image.fromarray(pixels).save(folder / f"{number:03d}.jpg")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of twenty images."""
    root = tmp_path_factory.mktemp("tree")
    for seed, name in enumerate(("cat", "dog")):
        pictures(root / name, 20, seed)
    return root


@pytest.fixture(scope="module")
def exported(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    asked = Asked(folder, tree, SHAPE, engines=("onnxruntime", "pytorch"), precisions=("float32", "int8"))
    run = export_network(TINY, asked)
    return run, measure(run)


def test_the_folder_is_laid_out_like_a_runs(exported):
    run, _ = exported
    first, second = run.written
    assert first.name == "tiny.float32.onnx"
    assert second.name.startswith("tiny.int8")
    assert all(parity.record_path(path).is_file() for path in run.written)
    names = sorted(path.name for path in (run.folder / "engines").iterdir())
    assert names == ["tiny-onnxruntime-float32", "tiny-onnxruntime-int8", "tiny-pytorch"]


def test_the_record_says_what_parity_was_shown_on(exported):
    run, _ = exported
    record = read_json(parity.record_path(run.written[0]))
    assert (record["samples"], record["images"], record["passed"]) == (40, "real images", True)


def test_classes_are_the_folders_and_accuracy_is_measured_with_its_interval(exported):
    _, rows = exported
    assert engines.read_manifest(Path(rows[0].path)).classes == ("cat", "dog")
    assert [(row.engine, row.precision) for row in rows] == [
        ("onnxruntime", "float32"), ("onnxruntime", "int8"), ("pytorch", "float32")
    ]  # fmt: skip
    assert {row.samples for row in rows} == {20}, "half of the images are set aside for calibration"
    assert rows[0].agreement == rows[2].agreement == 1.0
    for row in rows:
        assert row.low <= row.accuracy <= row.high
    assert json.loads(json.dumps([row.as_json() for row in rows]))


def test_calibration_and_measurement_share_no_image(tree):
    files = model_images.find(tree, samples=1000)
    names = [{file.where for file, _ in part} for part in (files.calibration, files.evaluation)]
    assert len(names[0]) == len(names[1]) == 20
    assert not names[0] & names[1]
    labels = [label for _, label in files.calibration]
    assert labels.count(0) == labels.count(1) == 10


def test_train_and_test_keep_their_parts(tmp_path):
    for part, count in (("train", 3), ("test", 2)):
        for name in ("a", "b"):
            pictures(tmp_path / part / name, count)
    files = model_images.find(tmp_path, samples=1000)
    assert {file.parts[0] for file, _ in files.calibration} == {"train"}
    assert {file.parts[0] for file, _ in files.evaluation} == {"test"}
    assert len(model_images.find(tmp_path, samples=2).evaluation) == 2


def test_images_side_by_side_have_no_accuracy(tmp_path):
    pictures(tmp_path / "flat", 12)
    asked = Asked(tmp_path / "out", tmp_path / "flat", SHAPE, 2, engines=("onnxruntime",), precisions=("int8",))
    run = export_network(TINY, asked)
    (row,) = measure(run)
    assert row.accuracy is None
    assert row.samples == 6
    (card,) = (
        read_json(path) for path in (tmp_path / "out" / "export").glob("*int8*.json") if "parity" not in path.name
    )
    assert "validation" not in card, "there are no labels to be right about"
    assert card["agreement"]["samples"] == 6


def test_without_images_parity_is_on_seeded_random_inputs(tmp_path):
    run = export_network(TINY, Asked(tmp_path, shape=SHAPE, classes=4))
    record = read_json(parity.record_path(run.written[0]))
    assert (record["samples"], record["images"]) == (16, "seeded random inputs")


def test_other_precisions_without_images_are_refused(tmp_path):
    for precision in PRECISIONS[1:]:
        with pytest.raises(UserError, match=rf"{precision} needs images .* add --data PATH"):
            Asked(tmp_path, precisions=(precision,)).check()
    with pytest.raises(UserError, match=r"There is no precision 'int9'. Did you mean 'int8'?"):
        Asked(tmp_path, precisions=("int9",)).check()


def test_gray_images_for_a_network_of_colours_and_the_other_way(tmp_path):
    pictures(tmp_path, 4, gray=True)
    files = model_images.find(tmp_path, 10)
    images = model_images.read(files, SHAPE, ("a", "b")).train.images
    assert images.shape == (2, 16, 12, 3)
    assert (images[..., 0] == images[..., 2]).all()
    pictures(tmp_path, 4)
    with pytest.raises(UserError, match="have colours, and the network takes one channel"):
        model_images.read(model_images.find(tmp_path, 10), (1, 16, 12), ("a", "b"))


def test_folders_that_cannot_serve(tmp_path):
    with pytest.raises(UserError, match=r"There is no .*gone; --data takes a folder of images"):
        model_images.find(tmp_path / "gone", 10)
    with pytest.raises(UserError, match="holds no images"):
        model_images.find(tmp_path, 10)
    pictures(tmp_path, 1)
    with pytest.raises(UserError, match="holds 1 images; at least 2 are needed"):
        model_images.find(tmp_path, 10)


def test_mean_and_std_for_one_channel_or_for_each():
    assert normalisation([], [], 3) is None
    assert normalisation([0.5], [0.25], 3) == NormalizeSpec(mean=(0.5,) * 3, std=(0.25,) * 3)
    for mean, std, why in (
        ([0.5], [], "go together"),
        ([0.5, 0.5], [1.0], "has 2 values and the images 3"),
        ([0.5], [0.0], "above 0"),
    ):
        with pytest.raises(UserError, match=why):
            normalisation(mean, std, 3)


def test_what_files_are_called():
    assert role_of("timm:mobilenetv4_conv_small") == "mobilenetv4_conv_small"
    assert role_of("python:nets.mine:small net") == "small-net"
    assert role_of("nets/their net.float32.onnx") == "their-net"
