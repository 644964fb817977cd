"""Where the cache lies, and who makes what is in it."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from kdeploy import caches
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


def _keep(folder: Path, number: int, start: object, results: object) -> None:
    def make(temporary: Path) -> None:
        results.put(number)  # type: ignore[attr-defined]
        time.sleep(0.3)
        (temporary / "who").write_text(str(number))

    start.wait()  # type: ignore[attr-defined]
    caches.keep(folder, make)
    results.put((folder / "who").read_text())  # type: ignore[attr-defined]


def test_of_several_processes_one_makes_it_and_the_others_wait(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(3), context.Queue()
    workers = [context.Process(target=_keep, args=(tmp_path / "kind/a", n, start, results)) for n in range(3)]
    for worker in workers:
        worker.start()
    answers = [results.get(timeout=60) for _ in range(4)]
    for worker in workers:
        worker.join()
    made = [answer for answer in answers if isinstance(answer, int)]
    assert len(made) == 1
    assert [answer for answer in answers if isinstance(answer, str)] == [str(made[0])] * 3
    assert [path.name for path in (tmp_path / "kind").iterdir() if path.is_dir()] == ["a"]


def test_what_fails_leaves_nothing_and_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    abandoned = tmp_path / ".a-killed"
    abandoned.mkdir()

    def fail(temporary: Path) -> None:
        (temporary / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        caches.keep(tmp_path / "a", fail)
    assert [path.name for path in tmp_path.iterdir()] == [".a.lock"]
    caches.keep(tmp_path / "a", lambda temporary: (temporary / "whole").touch())
    caches.keep(tmp_path / "a", fail)  # it is there
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["whole"]


def test_without_locks_the_faster_process_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(caches.errno.ENOLCK, "No locks available")

    def overtaken(temporary: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "theirs").touch()
        (temporary / "ours").touch()

    monkeypatch.setattr(caches.fcntl, "flock", no_locks)
    caches.keep(tmp_path / "a", overtaken)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["theirs"]


def test_entries_are_listed_by_last_use_and_cleared_without_the_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDEPLOY_CACHE", str(tmp_path / "none yet"))
    assert caches.entries() == []
    assert caches.clear() == 0
    monkeypatch.setenv("KDEPLOY_CACHE", str(tmp_path))
    for kind, name, size in (("images", "new", 3), ("teachers", "old", 5), ("data", "MNIST", 7)):
        caches.keep(tmp_path / kind / name, lambda folder, size=size: (folder / "x").write_bytes(bytes(size)))
    os.utime(tmp_path / "teachers/old", (1000, 1000))
    found = caches.entries()
    assert [(entry.kind, entry.folder.name, entry.size_bytes) for entry in found] == [
        ("teachers", "old", 5),
        ("images", "new", 3),
    ]
    assert found[0].used_s == 1000
    assert caches.clear() == 8
    assert caches.entries() == []
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
