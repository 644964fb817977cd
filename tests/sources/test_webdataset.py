"""WebDataset shards, written by the webdataset package itself where it is installed, and by hand where they are bad."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdeploy import sources
from kdeploy.errors import UserError
from kdeploy.recipe.schema import DataSpec
from kdeploy.sources import webdataset
from kdeploy.sources.base import Source
from tests.sources.conftest import encoded, random_pixels

Files = dict[str, bytes]


def write_tar(path: Path, files: Files, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def samples(count: int, start: int = 0, **more: bytes) -> Files:
    files = {}
    for n in range(start, start + count):
        files[f"{n:06}.png"] = encoded(random_pixels(6, 5, 3, seed=n))
        files[f"{n:06}.cls"] = str(n % 3).encode()
        files.update({f"{n:06}.{extension}": content for extension, content in more.items()})
    return files


def load(root: Path, pattern: str, **more: Any) -> Source:
    name = f"webdataset:{pattern}"
    return webdataset.load(DataSpec.model_validate({"source": name, "root": str(root), **more}), pattern, Path())


@pytest.mark.parametrize("memory", [True, False])
def test_shards_written_by_the_package_itself(tmp_path: Path, memory: bool) -> None:
    package = pytest.importorskip("webdataset", reason="the package webdataset is not installed (kdeploy[dev])")
    with package.ShardWriter(str(tmp_path / "train-%03d.tar"), maxcount=4, verbose=0) as writer:
        for n in range(10):
            picture = encoded(random_pixels(6, 5, 3, seed=n))
            writer.write({"__key__": f"sample{n:04}", "png": picture, "cls": n % 3, "json": {"n": n}})
    assert len(list(tmp_path.glob("*.tar"))) == 3
    source = load(tmp_path, "train-{000..002}.tar", memory=memory)
    assert source.test is None
    assert source.train.classes == ("0", "1", "2")
    assert source.train.labels.tolist() == [n % 3 for n in range(10)]
    assert source.train.streams is not memory
    for n in range(10):
        assert np.array_equal(source.train.images[n], random_pixels(6, 5, 3, seed=n))


def test_test_shards_names_of_classes_and_a_glob(tmp_path: Path) -> None:
    write_tar(tmp_path / "a-1.tar", samples(4))
    write_tar(tmp_path / "a-2.tar", samples(2, start=4))
    write_tar(tmp_path / "b.tar", samples(3, start=50))
    options = {"test": "b.tar", "classes": ["ant", "bee", "cow", "dog"]}
    source = load(tmp_path, "a-*.tar", options=options)
    assert source.test is not None
    assert source.train.classes == source.test.classes == ("ant", "bee", "cow", "dog")
    assert source.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert source.test.labels.tolist() == [2, 0, 1]
    assert np.array_equal(source.test.images[2], random_pixels(6, 5, 3, seed=52))


def test_names_as_labels_and_files_in_folders(tmp_path: Path) -> None:
    files = {}
    for n, name in enumerate(["dog", "cat", "dog"]):
        files |= {
            f"deep/{n}.meta.json": b"{}",
            f"deep/{n}.PNG": encoded(random_pixels(6, 5, 3)),
            f"deep/{n}.txt": name.encode(),
        }
    write_tar(tmp_path / "a.tar", files)
    source = load(tmp_path, "a.tar", options={"label": "txt"})
    assert source.train.classes == ("cat", "dog")
    assert source.train.labels.tolist() == [1, 0, 1]
    with pytest.raises(UserError, match=r"data\.options\.classes does not have 'dog', which occurs"):
        load(tmp_path, "a.tar", options={"label": "txt", "classes": ["cat", "cow"]})


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"0.png": b"x"}, r"a\.tar:0 has no file \.cls with its class; .* \(it holds png\)"),
        ({"0.cls": b"1"}, r"a\.tar:0 has no pictures; one is wanted, and it holds cls"),
        ({"0.png": b"x", "0.jpg": b"x", "0.cls": b"1"}, r"a\.tar:0 has 2 pictures"),
        ({"0.png": b"x", "0.cls": bytes(2000)}, r"a\.tar:0 has too large a file \.cls"),
        ({"README": b"x"}, r"a\.tar holds no samples"),
    ],
)
def test_samples_that_are_not_whole_are_named(tmp_path: Path, files: Files, said: str) -> None:
    write_tar(tmp_path / "a.tar", files)
    with pytest.raises(UserError, match=said):
        load(tmp_path, "a.tar")


def test_shards_that_are_not_whole_or_not_there(tmp_path: Path) -> None:
    content = write_tar(tmp_path / "a.tar", samples(4)).read_bytes()
    (tmp_path / "a.tar").write_bytes(content[: 512 * 3 + 100])
    with pytest.raises(UserError, match=r"a\.tar (is not a whole, uncompressed tar file|was cut off)"):
        load(tmp_path, "a.tar")
    write_tar(tmp_path / "b.tar", samples(2), "w:gz")
    with pytest.raises(UserError, match=r"b\.tar is not a whole, uncompressed tar file"):
        load(tmp_path, "b.tar")
    write_tar(tmp_path / "c-0.tar", samples(2))
    with pytest.raises(UserError, match=r"There is no shard .*c-1\.tar"):
        load(tmp_path, "c-{0..1}.tar")


@pytest.mark.parametrize("pattern", ["../a.tar", "/a.tar", "x/../../a.tar"])
def test_shards_lie_in_the_root(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(UserError, match=r"must lie in data\.root"):
        load(tmp_path, pattern)


def test_links_in_a_shard_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("0.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        entry = tarfile.TarInfo("0.cls")
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"1"))
    with pytest.raises(UserError, match="has no pictures"):
        load(tmp_path, "a.tar")


def test_a_recipe_reaches_it_by_its_name(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", samples(60))
    splits = sources.load(DataSpec(source="webdataset:a.tar", root=str(tmp_path)), base=tmp_path)
    assert splits.shape == (6, 5, 3)
    assert {"hf", "webdataset"} <= set(sources.names())
