import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdeploy import events, sources
from kdeploy.errors import UserError
from kdeploy.recipe.schema import DataSpec
from kdeploy.sources.base import Source
from kdeploy.sources.imagefolder import load
from tests.sources.conftest import encoded, random_pixels, tree, write_tree


def read(root: Path, **options: object) -> Source:
    return load(DataSpec.model_validate({"source": "imagefolder", "root": root.name, **options}), "", root.parent)


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(events, "warn", texts.append)
    return texts


def test_pixels_and_labels_are_those_of_the_files(tmp_path: Path) -> None:
    source = read(write_tree(tmp_path / "data", tree()))
    assert source.test is not None
    assert source.train.classes == source.test.classes == ("cat", "dog")
    assert source.train.labels.tolist() == source.test.labels.tolist() == [0] * 4 + [1] * 4
    assert np.array_equal(source.train.images[5], random_pixels(6, 5, 3, seed=11))
    assert np.array_equal(source.test.images[2], random_pixels(6, 5, 3, seed=102))


def test_classes_without_train_and_test_are_all_train(tmp_path: Path) -> None:
    files = {name.removeprefix("train/"): content for name, content in tree(("train",)).items()}
    source = read(write_tree(tmp_path / "data", files))
    assert source.test is None
    assert len(source.train) == 8


def test_a_zip_and_several_zips_are_the_same_as_the_folder(tmp_path: Path) -> None:
    files = tree()
    folder = read(write_tree(tmp_path / "folder", files))
    single = read(write_zip(tmp_path / "all.zip", files))
    for number in range(3):
        write_zip(tmp_path / "several" / f"{number}.zip", dict(list(files.items())[number::3]))
    several = read(tmp_path / "several")
    for other in (single, several):
        assert other.test is not None
        assert folder.test is not None
        assert np.array_equal(other.train.images, folder.train.images)
        assert np.array_equal(other.test.images, folder.test.images)
        assert np.array_equal(other.train.labels, folder.train.labels)


def test_nothing_is_unpacked(tmp_path: Path) -> None:
    write_zip(tmp_path / "data.zip", tree())
    read(tmp_path / "data.zip")
    assert [path.name for path in tmp_path.rglob("*")] == ["data.zip"]


def test_gray_files_give_one_channel_and_a_mixture_three(tmp_path: Path) -> None:
    gray = {name: encoded(random_pixels(6, 5, seed=n)) for n, name in enumerate(tree())}
    source = read(write_tree(tmp_path / "gray", gray))
    assert source.train.images.shape == (8, 6, 5, 1)
    assert np.array_equal(source.train.images[0, :, :, 0], random_pixels(6, 5, seed=0))
    mixed = read(write_tree(tmp_path / "mixed", {**gray, "train/dog/9.png": encoded(random_pixels(6, 5, 3))}))
    assert mixed.train.images.shape == (9, 6, 5, 3)
    assert np.array_equal(mixed.train.images[0], np.repeat(random_pixels(6, 5, 1, seed=0), 3, axis=2))


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "WEBP", "PPM"])
def test_other_formats(tmp_path: Path, kind: str) -> None:
    suffix = {"JPEG": "JPG"}.get(kind, kind)
    pixels = np.full((6, 5, 3), 90, dtype=np.uint8)
    source = read(write_tree(tmp_path / "data", {**tree(("train",)), f"train/ant/0.{suffix}": encoded(pixels, kind)}))
    assert source.train.classes == ("ant", "cat", "dog")
    assert np.abs(source.train.images[0].astype(int) - 90).max() <= 2


def test_large_images_are_decoded_in_threads_to_the_same_pixels(tmp_path: Path) -> None:
    files = {f"{k}/{n}.png": encoded(random_pixels(80, 70, 3, seed=n)) for k in "ab" for n in range(2)}
    source = read(write_tree(tmp_path / "data", files))
    assert np.array_equal(source.train.images[3], random_pixels(80, 70, 3, seed=1))


def test_size_resizes_images_of_any_size(tmp_path: Path) -> None:
    files = {**tree(("train",)), "train/cat/wide.png": encoded(np.full((40, 90, 3), 7, dtype=np.uint8))}
    source = read(write_tree(tmp_path / "data", files), size=8)
    assert source.train.images.shape == (9, 8, 8, 3)
    assert np.all(source.train.images[4] == 7)


def test_the_first_image_of_another_size_is_named(tmp_path: Path) -> None:
    files = {**tree(), "train/dog/1.png": encoded(random_pixels(7, 5, 3))}
    with pytest.raises(UserError, match=r"train/dog/1\.png has 5x7 pixels, others 5x6; set data\.size"):
        read(write_tree(tmp_path / "data", files))


def damaged() -> dict[str, bytes]:
    jpeg = encoded(random_pixels(6, 5, 3), "JPEG")
    return {
        "train/cat/1.jpg": jpeg[: len(jpeg) - 20],
        "train/dog/1.jpg": b"this is no image",
        "train/dog/2.png": tree()["train/dog/2.png"][:60],
        "train/dog/7.png": b"",
    }


def test_broken_images_stop_and_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read(write_tree(tmp_path / "data", {**tree(), **damaged()}))
    message = str(caught.value)
    assert message.startswith("4 of 19 images cannot be read")
    assert all(
        f"train/{name}" in message for name in ("cat/1.jpg (image file is truncated", "dog/1.jpg (not an image)")
    )
    assert "dog/2.png" in message
    assert "dog/7.png" not in message
    assert "data.broken: skip" in message


def test_broken_images_are_skipped_on_request(tmp_path: Path, heard: list[str]) -> None:
    source = read(write_tree(tmp_path / "data", {**tree(), **damaged()}), broken="skip")
    assert source.train.labels.tolist() == [0] * 4 + [1] * 3
    assert np.array_equal(source.train.images[-1], random_pixels(6, 5, 3, seed=13))
    assert len(heard) == 1
    assert heard[0].startswith("4 of 19 images cannot be read")


def test_a_tree_of_broken_images_alone_is_refused(tmp_path: Path) -> None:
    files = {f"train/{klass}/0.jpg": b"no" for klass in "ab"}
    with pytest.raises(UserError, match="None of the 2 images can be read"):
        read(write_tree(tmp_path / "data", files), broken="skip")


def test_sixteen_bit_images_are_not_clipped_silently(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.full((6, 5), 4000, dtype=np.uint16)).save(stream, "PNG")
    with pytest.raises(UserError, match="not 8 bits a channel"):
        read(write_tree(tmp_path / "data", {**tree(), "train/cat/deep.png": stream.getvalue()}))


def png_header(width: int, height: int) -> bytes:
    """A PNG file that declares a size and holds hardly anything."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    files = {**tree(), "train/cat/bomb.png": png_header(60_000, 60_000)}
    with pytest.raises(UserError, match=r"1 of 17 images cannot be read: .*bomb\.png"):
        read(write_tree(tmp_path / "data", files))


def test_images_for_more_than_half_of_the_memory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="more than half of this machine's"):
        read(write_tree(tmp_path / "data", tree()), size=200_000, memory=True)


@pytest.mark.parametrize(
    "name", ["../evil.png", "train/../../evil.png", "/train/cat/evil.png", "train\\cat\\evil.png", "C:/evil.png", ".."]
)
def test_a_zip_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    path = write_zip(tmp_path / "data.zip", {**tree(), name: tree()["train/cat/0.png"]})
    with pytest.raises(UserError, match="points outside of its folder") as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert repr(name) in str(caught.value)


def test_a_zip_entry_that_unpacks_to_too_much_is_refused_unread(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "data.zip", {**tree(), "train/cat/9.png": bytes(65 << 20)})
    assert path.stat().st_size < 1 << 20
    with pytest.raises(UserError, match=r"'train/cat/9\.png' unpacks to 68157440 bytes"):
        read(path)


def test_a_zip_entry_that_unpacks_to_more_than_it_declares_is_broken(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "data.zip", {**tree(), "train/cat/9.png": bytes(1 << 20)})
    true, false = (1 << 20).to_bytes(4, "little"), (1000).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(true, false))
    with pytest.raises(UserError, match=r"1 of 17 images cannot be read: .*data\.zip:train/cat/9\.png"):
        read(path)


def test_a_truncated_zip_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "data.zip", tree())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"data\.zip is not a whole zip file"):
        read(path)


def test_a_zip_with_damaged_content_names_the_entry(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "data.zip", tree())
    content = bytearray(path.read_bytes())
    content[content.index(b"train/cat/2.png") + 40] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"1 of 16 images cannot be read: .*data\.zip:train/cat/2\.png"):
        read(path)


def test_the_same_file_in_two_zips_is_refused(tmp_path: Path) -> None:
    write_zip(tmp_path / "data" / "a.zip", tree())
    write_zip(tmp_path / "data" / "b.zip", {"test/cat/0.png": tree()["test/cat/0.png"]})
    with pytest.raises(UserError, match="are the same file of the tree"):
        read(tmp_path / "data")


def test_train_and_test_must_have_the_same_classes(tmp_path: Path) -> None:
    files = {**tree(), "test/horse/0.png": tree()["test/cat/0.png"], "train/ant/0.png": tree()["test/cat/0.png"]}
    with pytest.raises(UserError, match="only in train: ant; only in test: horse"):
        read(write_tree(tmp_path / "data", files))


def test_other_folders_and_hidden_files_are_left_out(tmp_path: Path, heard: list[str]) -> None:
    extra = {
        "val/cat/0.png": b"",
        "train/.hidden/0.png": b"",
        "__MACOSX/train/cat/0.png": b"",
        "train/cat/notes.txt": b"",
    }
    source = read(write_tree(tmp_path / "data", {**tree(), **extra}))
    assert len(source.train) == 8
    assert len(heard) == 1
    assert "not val" in heard[0]


def test_zip_files_beside_folders_are_not_read(tmp_path: Path) -> None:
    write_tree(tmp_path / "data", tree())
    write_zip(tmp_path / "data" / "again.zip", tree())
    assert len(read(tmp_path / "data").train) == 8


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"readme.txt": b""}, "holds no folders of images"),
        ({"lonely.png": b""}, "holds no folders of images"),
        ({"test/cat/0.png": b""}, "no folder train"),
    ],
)
def test_a_root_without_the_layout_says_which_is_expected(
    tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read(write_tree(tmp_path / "data", files))


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root: there is no .*nowhere"):
        read(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"needs data\.root"):
        load(DataSpec(source="imagefolder"), "", tmp_path)


@pytest.mark.slow
def test_cifar10_as_jpeg(shared: Path) -> None:
    splits = sources.load(DataSpec(source="imagefolder", root=str(shared / "data" / "cifar10-jpeg")), base=Path())
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [45_000, 5_000, 10_000]
    assert splits.shape == (32, 32, 3)
    assert splits.classes[:4] == ("airplane", "automobile", "bird", "cat")
    assert np.bincount(splits.validation.labels).tolist() == [500] * 10
    assert np.bincount(splits.test.labels).tolist() == [1_000] * 10


def test_the_test_images_alone_without_those_of_train(tmp_path: Path) -> None:
    whole = read(write_tree(tmp_path / "whole", tree())).test
    assert whole is not None
    broken = {name: content if name.startswith("test/") else b"not to be opened" for name, content in tree().items()}
    gone = {name: content for name, content in tree().items() if name.startswith("test/")}
    roots = [write_tree(tmp_path / "broken", broken), write_tree(tmp_path / "gone", gone)]
    roots.append(write_zip(tmp_path / "test.zip", gone))
    for root in roots:
        spec = DataSpec.model_validate({"source": "imagefolder", "root": str(root)})
        splits = sources.load(spec, base=Path(), training_images=False)
        assert splits.classes == ("cat", "dog")
        assert np.array_equal(splits.test.images, whole.images)
        assert splits.test.labels.tolist() == whole.labels.tolist()
        assert len(splits.train) == len(splits.validation) == 0


def test_a_folder_without_test_images_has_none_to_give_alone(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", tree(("train",)))
    spec = DataSpec.model_validate({"source": "imagefolder", "root": str(root)})
    with pytest.raises(UserError, match=r"has no test images of its own: .* put them in test/<class>/<image>"):
        sources.load(spec, base=Path(), training_images=False)
