"""What runs on a device, asked directly: a Python of this machine, with a home of its own."""

import ast
import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kdeploy.errors import KdeployError, Unavailable, UserError
from kdeploy.targets import device
from kdeploy.targets.channel import Channel, Lost
from kdeploy.targets.device import store, watching
from kdeploy.targets.device.base import read_json
from kdeploy.targets.device.store import FOLDER, Store
from kdeploy.targets.program import program
from tests.targets.loopback import until


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def agent_at(tmp_path) -> Callable[..., Iterator[Channel]]:
    @contextmanager
    def connect(**variables: str) -> Iterator[Channel]:
        given = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), **variables}
        words = [f"{name}={value}" for name, value in given.items()]
        with Channel(lambda program: ["env", *words, sys.executable, "-c", program], "pi@host") as channel:
            yield channel

    return connect


@pytest.fixture
def asked(agent_at) -> Iterator[Channel]:
    with agent_at() as channel:
        channel.ask("hello", own=True)
        yield channel


def kept(tmp_path: Path) -> Path:
    return tmp_path / FOLDER


def test_an_old_python_can_read_it():
    """It has to get so far as to say that it is too old."""
    for file in Path(device.__file__).parent.glob("*.py"):
        ast.parse(file.read_text(), feature_version=(3, 6))
    ast.parse(program(), feature_version=(3, 6))


def test_a_home_that_cannot_be_written(agent_at, tmp_path):
    with agent_at(HOME="/nonexistent") as channel:
        found = channel.ask("hello", own=True)
    assert not found["in_home"]
    assert Path(found["folder"]).parent == tmp_path


def test_a_folder_that_somebody_else_put_there_is_not_used(agent_at, tmp_path):
    with agent_at(HOME="/nonexistent") as channel:
        folder = Path(channel.ask("hello", own=True)["folder"])
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with agent_at(HOME="/nonexistent") as channel, pytest.raises(UserError, match="is somebody else's"):
        channel.ask("hello", own=True)


def test_a_file_that_arrives_damaged_is_not_kept(asked, tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    with pytest.raises(UserError, match="arrived damaged"):
        asked.send_file(tmp_path / "file", sha256(b"other content"), lambda size: None)
    assert list((kept(tmp_path) / "files").iterdir()) == []
    asked.send_file(tmp_path / "file", sha256(b"content"), lambda size: None)
    assert asked.ask("missing", files=[sha256(b"content")])["missing"] == []


def test_a_file_that_is_cut_off_leaves_nothing(agent_at, tmp_path):
    with agent_at() as channel:
        channel.ask("hello", own=True)
        channel.tell("put", sha256=sha256(b"abc"), size=1000)
        channel._write(b"abc")
        until((kept(tmp_path) / "files").exists)
    until(lambda: not list((kept(tmp_path) / "files").iterdir()))


def test_our_mistake_there_is_an_answer_not_the_end(asked):
    with pytest.raises(Unavailable, match=r"(?s)begin anew: kdeploy target clean.*ValueError: no hash"):
        asked.ask("missing", files=["no hash"])
    assert asked.ask("missing", files=[])["missing"] == []


def test_a_broken_environment_says_so(asked, tmp_path):
    with pytest.raises(Unavailable, match=r"does not work \(it has no site-packages\)"):
        asked.ask("code", wheel="0" * 64)
    with pytest.raises(Unavailable, match=r"does not work \(NameError"):
        asked.ask("ask", program="nothing")


def test_the_answer_of_a_program_is_found_among_its_noise(asked):
    program = "import sys; print('[1, 2]'); sys.stdout.flush(); print('some warning', file=sys.stderr)"
    assert asked.ask("ask", program=program)["found"] == [1, 2]


def test_who_follows_and_falls_silent_is_gone(asked, tmp_path):
    """A pulled cable ends no connection by itself."""
    (kept(tmp_path) / "job-1").mkdir(parents=True)
    asked.ask("follow", job="job-1", events=0, stderr=0, patience_s=0.5)
    with pytest.raises(Lost):
        asked.hear(20)


@pytest.mark.parametrize("job", ["..", "job-1/../..", "files"])
def test_a_job_is_a_folder_of_ours(asked, job):
    with pytest.raises(Unavailable, match="outside its job"):
        asked.ask("cancel", job=job)


def test_cleaning_empties_a_larger_disk_that_our_folder_is_a_link_to(asked, tmp_path):
    (tmp_path / "larger").mkdir()
    kept(tmp_path).symlink_to(tmp_path / "larger")
    asked.ask("state", state={"a": 1})
    assert asked.ask("clean")["left"] is False
    assert not (tmp_path / "larger").exists()
    assert not kept(tmp_path).is_symlink()


def test_cleaning_where_there_is_nothing(asked):
    assert asked.ask("clean") | {"to": 0} == {"to": 0, "size_bytes": 0, "there": False, "left": False}


def test_only_our_user_may_look(asked, tmp_path):
    asked.ask("state", state={})
    assert kept(tmp_path).stat().st_mode & 0o077 == 0


def test_a_file_system_without_links_gets_copies(tmp_path, monkeypatch):
    def no_links(source, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(store.os, "link", no_links)
    kept, digest = Store(), hashlib.sha256(b"x").hexdigest()
    kept.keep(digest, [b"x"])
    kept.link(digest, tmp_path / "b")
    assert (tmp_path / "b").read_text() == "x"


def test_a_full_disk_still_learns_how_a_job_ended(tmp_path, monkeypatch):
    """Written over what is there, and never as a new file."""
    (tmp_path / "job.json").write_text("x" * 4000)
    inode = (tmp_path / "job.json").stat().st_ino
    watching._tell_status(tmp_path, 2)
    assert (tmp_path / "status").stat().st_ino == inode
    assert read_json(tmp_path / "status")["status"] == 2


def test_every_error_of_a_device_is_one_of_ours():
    from kdeploy.targets.refusals import refusal

    for kind in ("gone", "damaged", "something new"):
        assert isinstance(refusal({"error": kind}, "pi@host"), KdeployError)
