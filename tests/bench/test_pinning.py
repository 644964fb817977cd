from __future__ import annotations

import os
from pathlib import Path

import pytest

from kdeploy import machine
from kdeploy.bench import pinning
from kdeploy.errors import UserError


def describe(cpus: Path, core: int, capacity: int | None, siblings: str) -> None:
    (cpus / f"cpu{core}" / "topology").mkdir(parents=True)
    (cpus / f"cpu{core}" / "topology" / "thread_siblings_list").write_text(siblings + "\n")
    if capacity is not None:
        (cpus / f"cpu{core}" / "cpu_capacity").write_text(f"{capacity}\n")


def test_big_cores_come_first(tmp_path: Path) -> None:
    for core in range(6):
        describe(tmp_path, core, 1024 if core in (4, 5) else 446, str(core))
    assert pinning.order_cores({0, 1, 2, 3, 4, 5}, tmp_path) == [5, 4, 3, 2, 1, 0]
    assert pinning.order_cores({0, 1, 4}, tmp_path) == [4, 1, 0]


@pytest.mark.parametrize("pairs", [["0,4", "1,5", "2,6", "3,7"], ["0-1", "2-3", "4-5", "6-7"]])
def test_two_threads_do_not_share_a_core(tmp_path: Path, pairs: list[str]) -> None:
    core_of = {}
    for pair in pairs:
        for thread in pair.replace("-", ",").split(","):
            describe(tmp_path, int(thread), None, pair)
            core_of[int(thread)] = pair
    first_four = pinning.order_cores(set(range(8)), tmp_path)[:4]
    assert len({core_of[thread] for thread in first_four}) == 4


def test_without_a_description_the_highest_number_is_taken(tmp_path: Path) -> None:
    assert pinning.order_cores({0, 1, 2}, tmp_path) == [2, 1, 0]


def test_pinning_holds_and_is_recorded() -> None:
    before = os.sched_getaffinity(0)
    try:
        found = pinning.pin(1)
        assert set(found["cores"]) == os.sched_getaffinity(0)
        assert len(found["cores"]) == 1
    finally:
        os.sched_setaffinity(0, before)


def test_where_pinning_is_not_allowed_the_reason_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, cores: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    assert pinning.pin(1) == {"cores": None, "reason": "Operation not permitted"}


def test_more_threads_than_cores_are_refused() -> None:
    pinning.check_threads(machine.cores())
    with pytest.raises(UserError, match=r"bench\.threads is \d+, but this process may use"):
        pinning.check_threads(machine.cores() + 1)
