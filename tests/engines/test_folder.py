from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdeploy import engines
from kdeploy.artifacts import sha256_file
from kdeploy.errors import UserError
from tests.engines import models


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return models.build(tmp_path / "engine")


def edit(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_manifest_comes_back_as_written(folder: Path) -> None:
    manifest = engines.read_manifest(folder)
    engines.write_manifest(folder, manifest)
    assert engines.read_manifest(folder) == manifest
    assert manifest.files == {"model.onnx": sha256_file(folder / "model.onnx")}
    assert manifest.size_bytes == (folder / "model.onnx").stat().st_size


def test_one_flipped_bit_names_the_file(folder: Path) -> None:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(UserError, match=r"The file model\.onnx of the engine .* is not the one that was built"):
        engines.open_engine(folder, threads=1)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    with pytest.raises(UserError, match=r"The file model\.onnx of the engine .* is missing"):
        engines.read_manifest(folder)


def test_a_folder_without_a_manifest_is_no_engine(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not an engine folder"):
        engines.read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"precision": "int3"}, "precision"),
        ({"surprise": 1}, "surprise"),
        ({"preprocessing": {}}, r"preprocessing\.in_graph"),
        ({"model": "other.onnx"}, r"'other\.onnx', which is not among its files"),
    ],
)
def test_a_wrong_manifest_names_the_key(folder: Path, changes: dict[str, object], message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(UserError, match=message):
        engines.read_manifest(folder)


def test_broken_json_is_a_users_error(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"engine": "onnx')
    with pytest.raises(UserError, match="not valid JSON"):
        engines.read_manifest(folder)


@pytest.mark.parametrize("name", ["../outside.onnx", "/etc/hostname", "a/../../outside.onnx"])
def test_a_file_name_cannot_leave_the_folder(folder: Path, name: str) -> None:
    outside = folder.parent / "outside.onnx"
    outside.write_bytes((folder / "model.onnx").read_bytes())
    edit(folder, model=name, files={name: sha256_file(outside)})
    with pytest.raises(UserError, match="outside its folder"):
        engines.read_manifest(folder)


def test_a_link_cannot_leave_the_folder(folder: Path) -> None:
    outside = (folder / "model.onnx").rename(folder.parent / "outside.onnx")
    (folder / "model.onnx").symlink_to(outside)
    with pytest.raises(UserError, match="outside its folder"):
        engines.read_manifest(folder)
