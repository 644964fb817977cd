"""Files that are written whole or not at all; hashes that depend on the content alone."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdeploy import artifacts
from kdeploy.errors import UserError


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "c.json"
    artifacts.write_json(target, {"é": 1})
    assert artifacts.read_json(target) == {"é": 1}
    assert target.read_text(encoding="utf-8").endswith("\n")
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interruption_leaves_the_old_file_alone(tmp_path: Path, interruption: type[BaseException]) -> None:
    target = tmp_path / "weights.pt"
    target.write_text("old")

    def write() -> None:
        with artifacts.atomic_path(target) as temporary:
            temporary.write_text("half of the n")
            raise interruption

    with pytest.raises(interruption):
        write()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_process_that_is_killed_leaves_the_old_file_alone(tmp_path: Path) -> None:
    target = tmp_path / "state.json"
    artifacts.write_text(target, "old")
    dies = (
        "import os, pathlib, sys; from kdeploy import artifacts\n"
        "with artifacts.atomic_path(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half of the n'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", dies, str(target)], check=False).returncode == 9
    assert target.read_text() == "old"
    artifacts.write_text(target, "new")
    assert target.read_text() == "new"


def test_the_temporary_file_lies_beside_and_keeps_the_suffix(tmp_path: Path) -> None:
    with artifacts.atomic_path(tmp_path / "image.png") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".png"
        assert temporary.name.startswith(".")


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_file_has_the_rights_of_any_new_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        artifacts.write_text(tmp_path / "file", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into any folder")
def test_a_folder_without_the_right_to_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"file cannot be written: Permission denied\.$"):
        artifacts.write_text(tmp_path / "file", "")


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/run\.json cannot be written: (File exists|Not a directory)\.$"):
        artifacts.write_text(tmp_path / "file" / "run.json", "")


def test_a_target_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be written: Is a directory\.$"):
        artifacts.write_text(tmp_path, "")
    with pytest.raises(UserError, match=r"cannot be read: Is a directory\.$"):
        artifacts.read_json(tmp_path)


def test_a_full_disk_is_the_users_to_put_right_and_other_trouble_is_not(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(UserError, match="cannot be written: No space left"), artifacts.atomic_path(tmp_path / "a"):
        raise full
    with pytest.raises(FileNotFoundError), artifacts.atomic_path(tmp_path / "a"):
        raise FileNotFoundError(errno.ENOENT, "something else")
    assert not list(tmp_path.iterdir())


def test_not_a_number_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifacts.write_json(tmp_path / "file.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(UserError, match=r"file\.json is not valid JSON"):
        artifacts.read_json(tmp_path / "file.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no file .*file\.json\."):
        artifacts.read_json(tmp_path / "file.json")


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4, example of SHA-256
    assert artifacts.sha256_file(tmp_path / "abc") == known
    million = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
    (tmp_path / "abc").write_bytes(b"a" * 1_000_000)
    assert artifacts.sha256_file(tmp_path / "abc") == million


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES, min_size=2, max_size=4))
def test_a_hash_does_not_depend_on_the_order_of_keys(content: dict[str, object]) -> None:
    backwards = dict(reversed(content.items()))
    assert artifacts.sha256_json(content) == artifacts.sha256_json(backwards)


@given(VALUES, VALUES)
def test_different_values_have_different_hashes(one: object, two: object) -> None:
    import json

    assert (artifacts.sha256_json(one) == artifacts.sha256_json(two)) == (
        json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)
    )


def test_the_order_of_a_list_counts() -> None:
    assert artifacts.sha256_json([1, 2]) != artifacts.sha256_json([2, 1])


def test_sizes(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "one").write_bytes(b"123")
    (tmp_path / "a" / "two").write_bytes(b"4567")
    assert artifacts.size_bytes(tmp_path / "a") == 7
    assert artifacts.size_bytes(tmp_path / "a" / "two") == 4


def test_compressed_sizes(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    plain, random = bytes(3 << 20), os.urandom(1 << 20)
    (tmp_path / "a" / "b" / "plain").write_bytes(plain)
    (tmp_path / "a" / "random").write_bytes(random)
    assert artifacts.compressed_bytes(tmp_path / "a" / "b" / "plain") == len(zlib.compress(plain))
    assert artifacts.compressed_bytes(tmp_path / "a") == len(zlib.compress(plain)) + len(zlib.compress(random))


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = {tmp_path / name for name in (".lock", ".bashrc-mine", "model-abcdefgh.pt", ".git-abcdefgh/index")}
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for name in ("run.json", "student/state-of.json", "student/without"):
        with artifacts.atomic_path(tmp_path / name) as temporary:
            left = temporary.name
        (tmp_path / name).rename((tmp_path / name).with_name(left))
    artifacts.remove_temporaries(tmp_path)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == kept


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    artifacts.write_text(pipe, "whole")
    assert os.read(reader, 100) == b"whole"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]
