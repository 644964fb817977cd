import gzip
from pathlib import Path

import numpy as np
import pytest

from kdeploy import sources
from kdeploy.errors import UserError
from kdeploy.recipe.schema import DataSpec
from kdeploy.sources.base import Source
from kdeploy.sources.idx import load
from tests.sources.conftest import idx, random_pixels

TRAIN_LABELS = np.array([1, 2, 3, 1, 2, 3], dtype=np.uint8)
TEST_LABELS = np.array([3, 1], dtype=np.uint8)
MNIST = {
    "train-images-idx3-ubyte": idx(random_pixels(6, 4, 3)),
    "train-labels-idx1-ubyte": idx(TRAIN_LABELS),
    "t10k-images-idx3-ubyte": idx(random_pixels(2, 4, 3, seed=1)),
    "t10k-labels-idx1-ubyte": idx(TEST_LABELS),
}


def read(folder: Path, files: dict[str, bytes], **options: object) -> Source:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return load(DataSpec.model_validate({"source": "idx", "root": str(folder), **options}), "", Path())


def test_arrays_are_those_of_the_files(tmp_path: Path) -> None:
    source = read(tmp_path, MNIST)
    assert source.test is not None
    assert np.array_equal(source.train.images, random_pixels(6, 4, 3)[..., None])
    assert np.array_equal(source.test.images, random_pixels(2, 4, 3, seed=1)[..., None])
    assert source.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert source.test.labels.tolist() == [2, 0]
    assert source.train.classes == source.test.classes == ("1", "2", "3")
    sources.validate(source.train, "train")


def test_gzipped_files_under_emnists_names(tmp_path: Path) -> None:
    names = {name: f"emnist-letters-{name.replace('t10k', 'test')}.gz" for name in MNIST}
    source = read(tmp_path, {names[name]: gzip.compress(content) for name, content in MNIST.items()})
    assert source.test is not None
    assert np.array_equal(source.train.images[..., 0], random_pixels(6, 4, 3))
    assert len(source.test) == 2


def test_a_file_and_its_gzipped_twin_are_one(tmp_path: Path) -> None:
    twins = {f"{name}.gz": gzip.compress(content) for name, content in MNIST.items()}
    assert len(read(tmp_path, {**MNIST, **twins}).train) == 6


def test_without_test_files_there_is_no_test(tmp_path: Path) -> None:
    assert read(tmp_path, {name: content for name, content in MNIST.items() if "train" in name}).test is None


def test_classes_can_be_named(tmp_path: Path) -> None:
    assert read(tmp_path, MNIST, options={"classes": ["a", "b", "c"]}).train.classes == ("a", "b", "c")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["a", "b"]}, "names 2 classes; the files have 3: 1, 2, 3"),
        ({"classes": "abc"}, "must be a list of strings"),
        ({"clases": ["a"]}, "Did you mean 'classes'"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, MNIST, options=options)


IMAGES = MNIST["train-images-idx3-ubyte"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing"),
        (b"\x89PNG" + IMAGES[4:], "not an idx3 file of unsigned bytes: it begins with 89504e47"),
        (b"\0\0\x0d\x03" + IMAGES[4:], "begins with 00000d03"),
        (idx(TRAIN_LABELS), "begins with 00000801"),
        (IMAGES[:10], "not an idx3 file"),
        (IMAGES[:-1], r"declares 6x4x3 bytes|declares 72 bytes \(6x4x3\) and holds 71"),
        (IMAGES + b"\0", "holds more"),
        (IMAGES[:4] + b"\xff" * 12 + IMAGES[16:], "cannot hold"),
        (IMAGES[:4] + b"\0" * 12, "cannot hold"),
        (idx(random_pixels(5, 4, 3)), "holds 5 images and train-labels-idx1-ubyte holds 6 labels"),
    ],
)
def test_files_that_do_not_hold_together_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, {**MNIST, "train-images-idx3-ubyte": content})
    assert "train-images-idx3-ubyte" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [gzip.compress(IMAGES)[:-12], gzip.compress(IMAGES)[:30], IMAGES, gzip.compress(IMAGES[:4] + b"\xff" * 12)],
    ids=["no trailer", "cut short", "not gzip", "hostile sizes"],  # the bytes hold the time, and workers compare ids
)
def test_broken_gzip_files_are_named(tmp_path: Path, content: bytes) -> None:
    files = {name: data for name, data in MNIST.items() if name != "train-images-idx3-ubyte"}
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz (is broken or was cut off|declares)"):
        read(tmp_path, {**files, "train-images-idx3-ubyte.gz": content})


def test_labels_that_train_lacks_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte holds the labels \[7\]"):
        read(tmp_path, {**MNIST, "t10k-labels-idx1-ubyte": idx(np.array([1, 7], dtype=np.uint8))})


def test_a_folder_with_several_sets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="several sets"):
        read(tmp_path, {**MNIST, **{f"other-{name}": content for name, content in MNIST.items()}})


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no file like train-images-idx3-ubyte"):
        read(tmp_path, {})
    with pytest.raises(UserError, match="but no labels"):
        read(tmp_path, {"train-images-idx3-ubyte": IMAGES})
    with pytest.raises(UserError, match="is not a folder"):
        load(DataSpec(source="idx", root=str(tmp_path / "train-images-idx3-ubyte")), "", Path())


@pytest.mark.slow
def test_emnist_letters(shared: Path) -> None:
    splits = sources.load(DataSpec(source="idx", root=str(shared / "data" / "emnist-letters")), base=Path())
    assert len(splits.train) + len(splits.validation) == 124_800
    assert len(splits.test) == 20_800
    assert splits.shape == (28, 28, 1)
    assert splits.classes == tuple(str(letter) for letter in range(1, 27))
    assert np.bincount(splits.test.labels).tolist() == [800] * 26


def test_the_test_files_alone(tmp_path: Path) -> None:
    for name, content in MNIST.items():
        (tmp_path / name).write_bytes(content if name.startswith("t10k") else b"not to be opened")
    spec = DataSpec.model_validate({"source": "idx", "root": str(tmp_path), "options": {"classes": ["one", "three"]}})
    splits = sources.load(spec, base=Path(), training_images=False)
    assert splits.test.labels.tolist() == [1, 0]
    assert splits.classes == ("one", "three")
    assert np.array_equal(splits.test.images[..., 0], random_pixels(2, 4, 3, seed=1))
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="holds no file like t10k-images-idx3-ubyte or"):
        sources.load(spec, base=Path(), training_images=False)
