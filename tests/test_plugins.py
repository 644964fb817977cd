"""Objects from other people's code, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdeploy.errors import UserError
from kdeploy.plugins import load_object


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder."""
    (tmp_path / "their_module.py").write_text("answer = 42\n")
    (tmp_path / "needs_more.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    return "their_module"


def test_a_module_in_the_current_folder_is_found(module: str) -> None:
    assert load_object(f"python:{module}:answer") == 42


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("python:their_module:anser", "the module their_module has no 'anser'. Did you mean 'answer'?"),
        ("python:their_modul:answer", "there is no module 'their_modul' here. Is its folder on PYTHONPATH?"),
        ("python:needs_more:x", "there is no module 'a_package_that_is_not_there' here."),
        ("python:their_module", "must be written python:package.module:name."),
        ("python::answer", "must be written python:package.module:name."),
        ("python:.their_module:answer", "must be written python:package.module:name."),
        ("python:their_module.py:answer", "there is no module 'their_module.py' here."),
        ("their_module:answer", "must be written python:package.module:name."),
    ],
)
def test_what_is_not_there_is_named(module: str, reference: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        load_object(reference)
    assert reference in str(caught.value)
    assert sentence in str(caught.value)
