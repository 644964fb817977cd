"""One trained teacher for all tests of this folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.training import tiny


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`networks/teacher` of a finished tiny teacher, well above chance."""
    folder = tmp_path_factory.mktemp("teacher")
    tiny.train(tiny.workshop(tiny.recipe(), folder), "teacher")
    return folder / "networks" / "teacher"


@pytest.fixture
def run_folder(teacher_folder: Path, tmp_path: Path) -> Path:
    """A folder in which the teacher is finished."""
    shutil.copytree(teacher_folder, tmp_path / "run" / "networks" / "teacher")
    return tmp_path / "run"
