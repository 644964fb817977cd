"""Two processes never work in one run folder; what a killed one left is taken over."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdeploy import pipeline, runlock
from kdeploy.errors import UserError
from tests.training import tiny

HOLDS = """
import pathlib, sys
from kdeploy import runlock
with runlock.held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of `run`."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    words = [sys.executable, "-c", HOLDS, str(tmp_path / "run")]
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_told_who_is_there(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    said = re.escape(f"{folder} is in use by process {holder.pid} on ") + r"\S+ since 20\d\d-\S+\. .*--out DIR\.$"
    with pytest.raises(UserError, match=said), runlock.held(folder):
        pytest.fail("two hold it")
    with pytest.raises(UserError, match=said):
        pipeline.open_run(tiny.recipe(), folder)
    assert [path.name for path in folder.iterdir()] == [runlock.LOCK]


def test_fresh_removes_nothing_under_another_process(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    made = pipeline.open_run(tiny.recipe(), tmp_path / "other")
    for path in made.folder.iterdir():
        path.replace(tmp_path / "run" / path.name)
    with pytest.raises(UserError, match="is in use by process"):
        pipeline.open_run(tiny.recipe(), tmp_path / "run", fresh=True)
    with pytest.raises(UserError, match="is in use by process"):
        pipeline.execute(pipeline.Run(tiny.recipe(), tmp_path / "run", made.record), [])
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"recipe.yaml", "run.json", ".lock"}


def test_what_a_killed_process_left_is_taken_over(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait(timeout=30)
    left = tmp_path / "run" / runlock.LOCK
    assert json.loads(left.read_text())["pid"] == holder.pid
    with runlock.held(left.parent):
        assert json.loads(left.read_text())["pid"] == os.getpid()
    assert not left.exists()


def test_a_lock_that_was_removed_while_it_was_waited_for_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening the file and locking it, its holder may have removed it: then another may hold a new one."""
    lock, files = runlock.fcntl.flock, []

    def removed_once(descriptor: int, how: int) -> None:
        lock(descriptor, how)
        files.append(os.fstat(descriptor).st_ino)
        if len(files) == 1:
            (tmp_path / runlock.LOCK).rename(tmp_path / "gone")

    monkeypatch.setattr(runlock.fcntl, "flock", removed_once)
    with runlock.held(tmp_path):
        assert (tmp_path / runlock.LOCK).stat().st_ino == files[-1]
    assert len(set(files)) == 2
