"""Decoding once, and decoding at each access: the same pixels."""

from __future__ import annotations

import errno
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from kdeploy import events, sources
from kdeploy.errors import UserError
from kdeploy.recipe.schema import DataSpec
from kdeploy.sources import pictures, state
from kdeploy.sources.base import Rows, Source
from kdeploy.sources.imagefolder import load
from tests.sources.conftest import encoded, random_pixels, tree, write_tree
from tests.sources.test_imagefolder import write_zip


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, and files that count as settled although the test has just written them."""
    monkeypatch.setattr(state, "SETTLED_NS", 0)
    monkeypatch.setenv("KDEPLOY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each call of `decode` was given."""
    calls: list[int] = []
    original = pictures.decode

    def counted(given: list, *arguments: object, **options: object) -> object:
        calls.append(len(given))
        return original(given, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(pictures, "decode", counted)
    return calls


def read(root: Path, **options: object) -> Source:
    return load(DataSpec.model_validate({"source": "imagefolder", "root": str(root), **options}), "", root.parent)


def equal(one: Source, other: Source) -> bool:
    return all(
        np.array_equal(a.images[:], b.images[:]) and np.array_equal(a.labels, b.labels)
        for a, b in ((one.train, other.train), (one.test, other.test))
        if a is not None and b is not None
    )


def test_the_second_time_pixels_come_mapped_from_the_cache(tmp_path: Path, decoded: list[int]) -> None:
    root = write_tree(tmp_path / "data", tree())
    first, second = read(root), read(root)
    assert decoded == [16]
    assert equal(first, second)
    assert isinstance(second.train.images, np.memmap)
    assert np.array_equal(second.train.images[5], random_pixels(6, 5, 3, seed=11))
    cut = second.train.take(np.array([6, 2]))
    assert isinstance(cut.images, Rows)
    assert np.array_equal(cut.take(np.array([1])).images[:], second.train.images[2:3])
    assert not cut.streams


def test_one_changed_byte_is_another_content_even_with_its_old_time(tmp_path: Path, decoded: list[int]) -> None:
    root = write_tree(tmp_path / "data", {**tree(), "train/cat/0.bmp": encoded(random_pixels(6, 5, 3), "BMP")})
    read(root)
    path = root / "train/cat/0.bmp"
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-4] ^= 0xFF
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    changed = read(root)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert decoded == [17, 17]
    assert not np.array_equal(changed.train.images[0], random_pixels(6, 5, 3))


@pytest.mark.parametrize("change", ["remove", "rename", "size"])
def test_what_changes_the_pixels_changes_the_key(tmp_path: Path, decoded: list[int], change: str) -> None:
    root = write_tree(tmp_path / "data", tree())
    read(root, size=4)
    if change == "remove":
        (root / "train/dog/3.png").unlink()
    elif change == "rename":
        (root / "train/dog/3.png").rename(root / "train/dog/7.png")
    read(root, size=5 if change == "size" else 4)
    assert len(decoded) == 2


def test_files_that_have_only_just_changed_are_not_relied_on(
    tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "SETTLED_NS", 60_000_000_000)
    root = write_tree(tmp_path / "data", tree())
    read(root)
    read(root)
    assert decoded == [16, 16]
    assert not (tmp_path / "cache").exists()


def test_broken_images_are_told_of_from_the_cache_too(
    tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    monkeypatch.setattr(events, "warn", heard.append)
    root = write_tree(tmp_path / "data", {**tree(), "train/cat/1.png": b"not an image"})
    first, second = read(root, broken="skip"), read(root, broken="skip")
    assert decoded == [16]
    assert len(first.train) == 7
    assert equal(first, second)
    assert len(heard) == 2
    assert heard[0] == heard[1]
    with pytest.raises(UserError, match=r"1 of 16 images cannot be read: .*1\.png \(not an image\)\. Repair"):
        read(root)
    assert decoded == [16]


@pytest.mark.parametrize("damage", ["short", "no survey", "not json", "another shape"])
def test_a_damaged_entry_is_made_again(
    tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    heard: list[str] = []
    monkeypatch.setattr(events, "warn", heard.append)
    root = write_tree(tmp_path / "data", tree())
    whole = read(root)
    expected = whole.train.images[:].copy()
    (entry,) = (path for path in (tmp_path / "cache/images").iterdir() if path.is_dir())
    if damage == "short":
        (entry / "images.npy").write_bytes((entry / "images.npy").read_bytes()[:-1])
    elif damage == "no survey":
        (entry / "survey.json").unlink()
    elif damage == "not json":
        (entry / "survey.json").write_text("{")
    else:
        np.save(entry / "images.npy", np.zeros((3, 6, 5, 3), dtype=np.uint8))
    assert np.array_equal(read(root).train.images[:], expected)
    assert decoded == [16, 16]
    assert heard == [f"{entry} is damaged; it is made again."]
    read(root)
    assert decoded == [16, 16]


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    monkeypatch.setattr(events, "warn", heard.append)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pictures.np, "save", full)
    root = write_tree(tmp_path / "data", tree())
    assert np.array_equal(read(root).train.images[5], random_pixels(6, 5, 3, seed=11))
    assert decoded == [16]
    assert "cannot be kept" in heard[0]
    assert [path.suffix for path in (tmp_path / "cache/images").iterdir()] == [".lock"]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_streamed_pixels_are_those_in_memory(tmp_path: Path, kind: str, large: bool) -> None:
    files = {f"{k}/{n}.png": encoded(random_pixels(80, 70, 3, seed=n)) for k in "ab" for n in range(3)}
    files = files if large else tree()
    root = write_tree(tmp_path / "data", files) if kind == "folder" else write_zip(tmp_path / "data.zip", files)
    kept, streamed = read(root), read(root, memory=False)
    assert streamed.train.streams
    assert equal(kept, streamed)
    train = streamed.train
    assert train.images.shape == kept.train.images.shape
    assert np.array_equal(train.images[4], kept.train.images[4])
    assert np.array_equal(train.images[np.array([[4, 1], [0, 4]])], kept.train.images[:][np.array([[4, 1], [0, 4]])])
    assert np.array_equal(train.take(np.array([3, 1])).images[-1:], kept.train.images[1:2])
    sent = pickle.loads(pickle.dumps(train.images))
    assert np.array_equal(sent[2], kept.train.images[2])


def test_streaming_looks_at_every_picture_once_and_remembers_what_it_saw(tmp_path: Path, decoded: list[int]) -> None:
    gray = {name: encoded(random_pixels(6, 5, seed=n)) for n, name in enumerate(tree())}
    root = write_tree(tmp_path / "data", {**gray, "train/dog/2.png": b"broken"})
    for _ in range(2):
        source = read(root, memory=False, broken="skip")
        assert source.train.images.shape == (7, 6, 5, 1)
        assert np.array_equal(source.train.images[6][..., 0], random_pixels(6, 5, seed=7))
    assert decoded == [16]


def test_a_picture_that_changes_under_a_run_is_named(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", tree())
    source = read(root, memory=False)
    (root / "train/cat/2.png").write_bytes(encoded(random_pixels(9, 9, 3)))
    with pytest.raises(UserError, match=r"2\.png has changed since this run began \(another size\)"):
        source.train.images[2]
    (root / "train/cat/2.png").unlink()
    with pytest.raises(UserError, match=r"2\.png has changed since this run began"):
        source.train.images[1:3]


def test_splits_and_fingerprint_are_the_same_streamed(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", tree(per_class=8))
    parts = [
        sources.load(DataSpec.model_validate({"source": "imagefolder", "root": str(root), "memory": memory}), base=root)
        for memory in (True, False)
    ]
    assert sources.fingerprint(parts[0]) == sources.fingerprint(parts[1])
    assert parts[1].shape == (6, 5, 3)


@pytest.mark.parametrize(("free", "streams"), [(16 * 6 * 5 * 3 * 4, False), (16 * 6 * 5 * 3 * 4 - 1, True)])
def test_auto_goes_by_the_free_memory_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, streams: bool
) -> None:
    said: list[tuple[str, ...]] = []
    monkeypatch.setattr(events, "decided", lambda *words: said.append(words))
    monkeypatch.setattr(pictures, "free_memory_bytes", lambda: free)
    source = read(write_tree(tmp_path / "data", tree()))
    assert source.train.streams is streams
    assert ("streamed from their files" in said[0]) is streams
    assert "GiB decoded" in said[0][2]


def test_an_enormous_size_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.size: images of 200000x200000 pixels are too many"):
        read(write_tree(tmp_path / "data", tree()), size=200_000)


def test_the_cache_holds_nothing_that_runs_when_it_is_read(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", tree())
    read(root)
    (entry,) = (path for path in (tmp_path / "cache/images").iterdir() if path.is_dir())
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (entry / "images.npy").write_bytes(stream.getvalue())
    assert read(root).train.images.shape == (8, 6, 5, 3)
