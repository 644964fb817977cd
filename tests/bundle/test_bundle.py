from __future__ import annotations

import hashlib
import json
import random
import stat
import zipfile
from pathlib import Path

import pytest

from kdeploy.bundle import inspect, open_bundle, pack
from kdeploy.bundle.info import SEAL_BYTES, safe_name
from kdeploy.engines.base import Manifest, Preprocessing
from kdeploy.errors import UserError

MODEL = bytes(range(256)) * 20


def write_engine(folder: Path) -> Path:
    folder.mkdir()
    (folder / "model.onnx").write_bytes(MODEL)
    (folder / "stray.txt").write_text("not listed")
    manifest = Manifest(
        engine="onnxruntime",
        precision="int8",
        model="model.onnx",
        files={"model.onnx": hashlib.sha256(MODEL).hexdigest()},
        size_bytes=len(MODEL),
        input_name="image",
        input_dtype="uint8",
        output="probabilities",
        preprocessing=Preprocessing(in_graph=True, height=8, width=8, channels=1, mean=(0.5,), std=(0.5,)),
        classes=tuple("0123456789"),
        parameters=100,
        macs=1000,
        source="0" * 64,
        opset=18,
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json(indent=2))
    return folder


@pytest.fixture
def engine(tmp_path):
    return write_engine(tmp_path / "engine")


@pytest.fixture
def bundle(engine, tmp_path):
    pack(engine, tmp_path / "demo.kdz", name="demo", provenance={"seed": 0, "teacher": "résnet"})
    return tmp_path / "demo.kdz"


def contents(bundle: Path) -> dict[str, bytes]:
    with open_bundle(bundle) as folder:
        return {file.name: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_round_trip(engine, bundle):
    info = inspect(bundle)
    assert (info.name, info.engine, info.provenance) == ("demo", "onnxruntime-int8", {"seed": 0, "teacher": "résnet"})
    assert sorted(info.parts) == ["engine/manifest.json", "engine/model.onnx"]
    assert info.parts["engine/model.onnx"].size_bytes == len(MODEL)
    assert contents(bundle) == {
        "manifest.json": (engine / "manifest.json").read_bytes(),
        "model.onnx": MODEL,
    }


def test_the_unpacked_folder_is_removed(bundle):
    with open_bundle(bundle) as folder:
        assert (folder / "model.onnx").is_file()
    assert not folder.parent.exists()


def test_packing_twice_gives_the_same_bytes(engine, bundle, tmp_path):
    pack(engine, tmp_path / "again.kdz", name="demo", provenance={"teacher": "résnet", "seed": 0})
    assert (tmp_path / "again.kdz").read_bytes() == bundle.read_bytes()


def test_the_seal_is_the_hash_of_all_before_it(bundle):
    content = bundle.read_bytes()
    assert content[-SEAL_BYTES:].decode() == hashlib.sha256(content[:-SEAL_BYTES]).hexdigest()


def test_an_ordinary_unzip_reads_it(bundle):
    with zipfile.ZipFile(bundle) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["bundle.json", "engine/manifest.json", "engine/model.onnx"]


def test_a_damaged_engine_is_not_packed(engine, tmp_path):
    (engine / "model.onnx").write_bytes(MODEL[:-1])
    with pytest.raises(UserError):
        pack(engine, tmp_path / "demo.kdz", name="demo", provenance={})
    assert not (tmp_path / "demo.kdz").exists()


def refused(bundle: Path) -> str:
    """The one sentence with which both ways of opening refuse the file."""
    with pytest.raises(UserError) as error:
        inspect(bundle)
    with pytest.raises(UserError), open_bundle(bundle):
        pass
    sentence = str(error.value)
    assert str(bundle) in sentence
    assert "\n" not in sentence
    return sentence


def test_any_flipped_byte_is_found(bundle):
    content = bundle.read_bytes()
    draw = random.Random(0)
    model_at = content.index(MODEL)
    framing = [at for at in range(len(content)) if not model_at <= at < model_at + len(MODEL)]
    places = draw.sample(framing, 700) + draw.sample(range(model_at, model_at + len(MODEL)), 50)
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= draw.randrange(1, 256)
        bundle.write_bytes(damaged)
        with pytest.raises(UserError):
            inspect(bundle)


def test_any_truncation_is_found(bundle):
    content = bundle.read_bytes()
    for length in (0, 1, 21, 22, len(content) // 2, len(content) - SEAL_BYTES, len(content) - 1):
        bundle.write_bytes(content[:length])
        with pytest.raises(UserError):
            inspect(bundle)


def test_added_bytes_are_found(bundle):
    content = bundle.read_bytes()
    for changed in (content + b"x", b"x" + content):
        bundle.write_bytes(changed)
        refused(bundle)


def test_random_bytes_are_no_bundle(bundle):
    bundle.write_bytes(random.Random(0).randbytes(5000))
    assert "is not a bundle" in refused(bundle)
    bundle.unlink()
    assert "There is no bundle" in refused(bundle)


def rebuild(bundle: Path, change) -> None:
    """Write the bundle anew with its entries changed by `change(entries: list of [ZipInfo, bytes])`, and seal it."""
    with zipfile.ZipFile(bundle) as archive:
        entries = [[info, archive.read(info)] for info in archive.infolist()]
    change(entries)
    with zipfile.ZipFile(bundle, "w") as archive:
        for info, content in entries:
            archive.writestr(info, content)
        archive.comment = b"0" * SEAL_BYTES
    body = bundle.read_bytes()[:-SEAL_BYTES]
    bundle.write_bytes(body + hashlib.sha256(body).hexdigest().encode())


def edit_index(entries, edit) -> None:
    index = json.loads(entries[0][1])
    edit(index)
    entries[0][1] = json.dumps(index).encode()


def test_rebuilding_without_a_change_is_accepted(bundle):
    before = contents(bundle)
    rebuild(bundle, lambda entries: None)
    assert contents(bundle) == before


def test_missing_part(bundle):
    rebuild(bundle, lambda entries: entries.pop())
    assert "the part engine/model.onnx is missing" in refused(bundle)


def test_unlisted_part(bundle):
    rebuild(bundle, lambda entries: entries.append([zipfile.ZipInfo("engine/extra.so"), b"x"]))
    assert "engine/extra.so is not listed" in refused(bundle)


def test_changed_part(bundle):
    rebuild(bundle, lambda entries: entries[2].__setitem__(1, MODEL[:-1] + b"x"))
    assert "engine/model.onnx does not match its SHA-256" in refused(bundle)


def test_part_of_another_size(bundle):
    rebuild(bundle, lambda entries: entries[2].__setitem__(1, MODEL + b"x"))
    assert "5121 bytes instead of 5120" in refused(bundle)


def test_no_index(bundle):
    rebuild(bundle, lambda entries: entries.pop(0))
    assert "holds no bundle.json" in refused(bundle)


def test_a_newer_schema(bundle):
    rebuild(bundle, lambda entries: edit_index(entries, lambda index: index.update(schema_version=2, signature="...")))
    assert "bundle schema 2; this kdeploy reads 1: update it" in refused(bundle)


@pytest.mark.parametrize("index", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000], ids=repr)
def test_an_index_that_is_none(bundle, index):
    rebuild(bundle, lambda entries: entries[0].__setitem__(1, index))
    assert "in its bundle.json" in refused(bundle)


def test_an_index_without_a_manifest(bundle):
    def change(entries):
        edit_index(entries, lambda index: index["parts"].pop("engine/manifest.json"))
        del entries[1]

    rebuild(bundle, change)
    assert "engine/manifest.json is missing" in refused(bundle)


@pytest.mark.parametrize(
    "name",
    ["../evil", "engine/../../evil", "/etc/evil", "engine//evil", "engine\\evil", "engine/", "evil", "engine/.hidden"],
)
def test_unsafe_names(bundle, name):
    def change(entries):
        edit_index(entries, lambda index: index["parts"].update({name: {"sha256": "0" * 64, "size_bytes": 1}}))
        entries.append([zipfile.ZipInfo(name), b"x"])

    rebuild(bundle, change)
    assert "unsafe name" in refused(bundle)
    assert not safe_name(name)


def test_symbolic_link(bundle):
    def change(entries):
        entries[2][0].external_attr = (stat.S_IFLNK | 0o777) << 16

    rebuild(bundle, change)
    assert "is a link" in refused(bundle)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice(bundle):
    rebuild(bundle, lambda entries: entries.append(entries[2]))
    assert "holds engine/model.onnx twice" in refused(bundle)


def test_compressed_parts_are_refused(bundle):
    def change(entries):
        bomb = b"\0" * 10_000_000
        entries[2][0].compress_type = zipfile.ZIP_DEFLATED
        entries[2][1] = bomb

    rebuild(bundle, change)
    assert "is compressed" in refused(bundle)


def test_too_many_files(bundle):
    rebuild(bundle, lambda entries: entries.extend([zipfile.ZipInfo(f"engine/{n}"), b""] for n in range(1000)))
    assert "holds 1,003 files" in refused(bundle)
