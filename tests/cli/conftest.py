"""A finished run to look at, and the command line in this process, which saves importing torch each time."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kdeploy.cli import main
from tests.cli.answer import Answer, in_a_process, short


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> tuple[Path, Answer]:
    """The folder that a short quickstart was run in, from nothing, and what it answered."""
    folder = tmp_path_factory.mktemp("a folder with spaces")
    return folder, in_a_process(["run", "quickstart", *short()], folder)


@pytest.fixture
def place(finished, tmp_path, monkeypatch) -> Path:
    """An own copy of that folder, and the current one."""
    shutil.copytree(finished[0], tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Path:
    """An empty folder, the current one."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def kdeploy(capfd, monkeypatch) -> Callable[..., Answer]:
    """Runs `kdeploy WORDS` from the current folder: all but the process is the real thing."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*words: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["kdeploy", *map(str, words)])
        capfd.readouterr()
        status = main._run()
        return Answer(status, *capfd.readouterr())

    return run
