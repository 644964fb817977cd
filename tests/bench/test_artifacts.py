from __future__ import annotations

from pathlib import Path

import pytest

from kdeploy.bench.artifacts import Artifact, resolve, role_of
from kdeploy.errors import UserError
from tests.engines import models


def test_a_run_gives_all_its_engines_with_their_roles(tmp_path: Path) -> None:
    names = [
        "alone-onnxruntime-float32",
        "assistant-1-pytorch",
        "onnxruntime-int8",
        "peer-2-pytorch",
        "student-2-onnxruntime-int8",
        "student-pytorch",
        "teacher-pytorch",
    ]
    for name in names:
        (tmp_path / "engines" / name).mkdir(parents=True)
        (tmp_path / "engines" / name / "manifest.json").write_text("{}")
    (tmp_path / "engines" / "unfinished").mkdir()
    found = resolve(tmp_path)
    assert [artifact.name for artifact in found] == names
    assert [artifact.role for artifact in found] == [
        "alone",
        "assistant-1",
        "student",
        "peer-2",
        "student-2",
        "student",
        "teacher",
    ]
    assert resolve(tmp_path / "engines" / names[5]) == [found[5]]


@pytest.mark.parametrize(
    ("row", "role"),
    [
        ("student-pytorch", "student"),
        ("student-12-onnxruntime-int8", "student-12"),
        ("teacher-2-pytorch", "teacher-2"),
        ("assistant-pytorch", "assistant"),
        ("onnxruntime-int8", None),
        ("students-pytorch", None),
    ],
)
def test_whose_row_it_is(row: str, role: str | None) -> None:
    assert role_of(row) == role


def test_an_engine_folder_outside_a_run_is_a_file(tmp_path: Path) -> None:
    folder = models.build(tmp_path / "teacher-like")
    assert resolve(folder) == [Artifact("teacher-like", "file", folder)]


@pytest.mark.parametrize("name", ["network.onnx", "quickstart.kdz", "network.ort"])
def test_files_are_named_by_their_stem(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert resolve(tmp_path / name) == [Artifact(name.split(".")[0], "file", tmp_path / name)]


def test_anything_else_is_refused_with_what_is_taken(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").touch()
    for path in (tmp_path / "weights.pth", tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match=r"an engine folder, a run's folder, a bundle \(\.kdz\) or an ONNX file"):
            resolve(path)
