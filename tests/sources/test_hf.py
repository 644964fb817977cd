"""Sets of the Hugging Face library, made here and opened from disk; nothing is asked of the Hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdeploy.errors import Unavailable, UserError
from kdeploy.recipe.schema import DataSpec
from kdeploy.sources import hf
from kdeploy.sources.base import Source
from tests.sources.conftest import encoded, random_pixels, tree, write_tree

datasets = pytest.importorskip("datasets", reason="the library datasets is not installed (kdeploy[hf])")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KDEPLOY_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


def made(count: int = 6, shift: int = 0, label: Any = None) -> Any:
    """A set of `count` PNG pictures in the column picture, classes cat and dog in turns in the column animal."""
    columns = {
        "number": list(range(count)),
        "picture": [{"bytes": encoded(random_pixels(6, 5, 3, seed=n + shift)), "path": None} for n in range(count)],
        "animal": [n % 2 for n in range(count)],
    }
    features = {
        "number": datasets.Value("int64"),
        "picture": datasets.Image(),
        "animal": label or datasets.ClassLabel(names=["cat", "dog"]),
    }
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def load(root: Path, name: str, **more: Any) -> Source:
    return hf.load(DataSpec.model_validate({"source": f"hf:{name}", "root": str(root), **more}), name, Path())


@pytest.mark.parametrize("memory", [True, False])
def test_a_saved_dict_of_splits(tmp_path: Path, memory: bool) -> None:
    both = datasets.DatasetDict({"train": made(), "validation": made(4, shift=100)})
    both.save_to_disk(tmp_path / "sets" / "animals")
    source = load(tmp_path / "sets", "animals", memory=memory)
    assert source.test is not None
    assert source.train.classes == source.test.classes == ("cat", "dog")
    assert source.train.labels.tolist() == [0, 1] * 3
    assert source.train.streams is not memory
    assert np.array_equal(source.train.images[4], random_pixels(6, 5, 3, seed=4))
    assert np.array_equal(source.test.images[1:3], np.stack([random_pixels(6, 5, 3, seed=n) for n in (101, 102)]))


def test_a_saved_single_split_is_train(tmp_path: Path) -> None:
    made().save_to_disk(tmp_path / "animals")
    source = load(tmp_path, "animals")
    assert source.test is None
    assert len(source.train) == 6


def test_folders_of_images_with_the_librarys_own_reader(tmp_path: Path) -> None:
    write_tree(tmp_path / "sets" / "pets", tree())
    source = load(tmp_path / "sets", "pets")
    assert source.test is not None
    assert source.train.classes == ("cat", "dog")
    for number in range(8):
        klass = source.train.classes[source.train.labels[number]]
        candidates = [random_pixels(6, 5, 3, seed=10 * (klass == "dog") + n) for n in range(4)]
        assert any(np.array_equal(source.train.images[number], pixels) for pixels in candidates)
    assert (tmp_path / "cache" / "huggingface").is_dir()


def test_parquet_files(tmp_path: Path) -> None:
    (tmp_path / "animals").mkdir()
    made().to_parquet(tmp_path / "animals" / "train.parquet")
    source = load(tmp_path, "animals")
    assert np.array_equal(source.train.images[5], random_pixels(6, 5, 3, seed=5))
    assert source.train.classes == ("cat", "dog")


def test_plain_numbers_are_classes_and_texts_are_not(tmp_path: Path) -> None:
    made(label=datasets.Value("int64")).save_to_disk(tmp_path / "numbers")
    assert load(tmp_path, "numbers", options={"label": "animal"}).train.classes == ("0", "1")
    with pytest.raises(UserError, match=r"train has no columns that could be the label: set data.options.label"):
        load(tmp_path, "numbers")
    made(label=datasets.Value("string")).save_to_disk(tmp_path / "texts")
    with pytest.raises(UserError, match="neither numbers nor a ClassLabel; call class_encode_column"):
        load(tmp_path, "texts", options={"label": "animal"})
    with pytest.raises(UserError, match=r"has no column 'animals'\. Did you mean 'animal'\?"):
        load(tmp_path, "texts", options={"label": "animals"})


def test_a_script_beside_the_data_is_never_run(tmp_path: Path) -> None:
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(UserError, match="cannot be read as a data set"):
        load(tmp_path, "evil")
    assert not (tmp_path / "ran").exists()


def test_a_broken_picture_is_counted_and_named(tmp_path: Path) -> None:
    rows = made().to_dict()
    rows["picture"][2] = {"bytes": b"nothing", "path": None}
    datasets.Dataset.from_dict(rows, features=made().features).save_to_disk(tmp_path / "animals")
    with pytest.raises(UserError, match=r"1 of 6 images cannot be read: hf:animals, train image 2 \(not an image\)"):
        load(tmp_path, "animals")
    assert load(tmp_path, "animals", broken="skip").train.labels.tolist() == [0, 1, 1, 0, 1]


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder .*nowhere; without data.root, 'nowhere' is looked for"):
        load(tmp_path, "nowhere")
    datasets.DatasetDict({"other": made()}).save_to_disk(tmp_path / "other")
    with pytest.raises(UserError, match="hf:other has the splits other and none called train"):
        load(tmp_path, "other")


def test_the_hub_is_asked_without_root_and_only_where_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def offline(name: str, config: str | None, *, download_config: Any) -> None:
        asked.append((name, config, download_config.local_files_only))
        raise ConnectionError("Couldn't reach the Hub.\nMore lines.")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    for download in (True, False):
        spec = DataSpec(source="hf:uoft-cs/cifar10", download=download, options={"config": "plain"})
        with pytest.raises(Unavailable, match=r"cannot be had from the Hub \(Couldn't reach the Hub\); for a folder"):
            hf.load(spec, "uoft-cs/cifar10", Path())
    assert asked == [("uoft-cs/cifar10", "plain", False), ("uoft-cs/cifar10", "plain", True)]


def test_without_the_library_the_command_to_type_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> None:
            if name == "datasets":
                raise ModuleNotFoundError("No module named 'datasets'", name="datasets")

    monkeypatch.delitem(sys.modules, "datasets")
    monkeypatch.setattr(sys, "meta_path", [Absent, *sys.meta_path])
    with pytest.raises(
        Unavailable, match=r"hf:x needs datasets, which is not installed. Type: pip install 'kdeploy\[hf"
    ):
        hf.load(DataSpec(source="hf:x"), "x", Path())
