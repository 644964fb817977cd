"""The record of a run: what was made from what, and when it still counts."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

import kdeploy
from kdeploy import artifacts, provenance
from kdeploy.errors import UserError
from kdeploy.provenance import RECORD, RunRecord


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    """A record with one finished stage of two files."""
    made = RunRecord.new("try", 3)
    artifacts.write_text(tmp_path / "a" / "one", "1")
    artifacts.write_text(tmp_path / "two", "2")
    made.enter("first", {"x": 1}, [tmp_path / "two", tmp_path / "a" / "one"], tmp_path, time.monotonic() - 2)
    return made


KEY = artifacts.sha256_json({"x": 1})


def test_a_record_says_who_made_what_from_what(record: RunRecord, tmp_path: Path) -> None:
    again = RunRecord.read(tmp_path)
    assert again == record
    assert (again.name, again.seed, again.kdeploy) == ("try", 3, kdeploy.__version__)
    assert again.machine
    stage = again.stages["first"]
    assert (stage.key, stage.inputs) == (KEY, {"x": 1})
    assert stage.outputs == {
        "a/one": artifacts.sha256_file(tmp_path / "a" / "one"),
        "two": artifacts.sha256_file(tmp_path / "two"),
    }
    assert 2 <= stage.seconds < 60
    assert stage.finished_at.endswith("+00:00")


def test_a_finished_stage(record: RunRecord, tmp_path: Path) -> None:
    assert record.finished("first", KEY, tmp_path)
    assert not record.finished("first", artifacts.sha256_json({"x": 2}), tmp_path)
    assert not record.finished("second", KEY, tmp_path)


def test_a_file_that_is_gone_or_changed_is_not_finished(record: RunRecord, tmp_path: Path) -> None:
    (tmp_path / "two").write_text("3")
    assert not record.finished("first", KEY, tmp_path)
    (tmp_path / "two").write_text("2")
    assert record.finished("first", KEY, tmp_path)
    (tmp_path / "two").unlink()
    assert not record.finished("first", KEY, tmp_path)
    (tmp_path / "two").mkdir()
    assert not record.finished("first", KEY, tmp_path)


def test_a_folder_without_a_record(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a run: it has no run\.json\. `kdeploy runs` lists the runs\."):
        RunRecord.read(tmp_path)


@pytest.mark.parametrize("change", [{"schema_version": 2}, {"seed": "x"}, {"more": 1}])
def test_the_record_of_another_version(record: RunRecord, tmp_path: Path, change: dict[str, object]) -> None:
    content = artifacts.read_json(tmp_path / RECORD)
    artifacts.write_json(tmp_path / RECORD, {**content, **change})
    with pytest.raises(UserError, match="is not the record of a run that this version of kdeploy can read"):
        RunRecord.read(tmp_path)


class TestRevision:
    @pytest.fixture
    def checkout(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A repository with a file in the place of kdeploy's own, not committed yet."""
        file = tmp_path / "kdeploy" / "provenance.py"
        file.parent.mkdir()
        file.write_text("one\n")
        monkeypatch.setattr(provenance, "__file__", str(file))
        for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
            monkeypatch.delenv(name, raising=False)
        self.git(tmp_path, "init", "-q")
        return file

    @staticmethod
    def git(folder: Path, *words: str) -> str:
        who = ["-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def test_of_a_checkout(self, checkout: Path) -> None:
        self.git(checkout.parent, "add", ".")
        self.git(checkout.parent, "commit", "-q", "-m", "one")
        assert provenance.revision() == self.git(checkout.parent, "rev-parse", "HEAD")
        checkout.write_text("two\n")
        assert provenance.revision() == self.git(checkout.parent, "rev-parse", "HEAD") + "+"

    def test_installed_inside_somebodys_repository(self, checkout: Path) -> None:
        """An environment in a project's folder: the project's revision says nothing of kdeploy."""
        other = checkout.parents[1] / "their.py"
        other.touch()
        self.git(other.parent, "add", "their.py")
        self.git(other.parent, "commit", "-q", "-m", "theirs")
        assert provenance.revision() is None

    def test_without_git(self, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        assert provenance.revision() is None
