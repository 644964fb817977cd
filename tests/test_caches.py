"""Where the cache lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdeploy.caches import cache_folder


def test_the_cache_lies_where_the_first_variable_that_is_set_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("KDEPLOY_CACHE", "")
    assert cache_folder("images") == tmp_path / "home/.cache/kdeploy/images"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder("images") == tmp_path / "xdg/kdeploy/images"
    monkeypatch.setenv("KDEPLOY_CACHE", str(tmp_path / "own"))
    assert cache_folder("images") == tmp_path / "own/images"
