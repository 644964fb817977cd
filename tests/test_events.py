"""What the library says reaches every listener, and the logger where there is none."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kdeploy import events
from kdeploy.runlog import RunLog


class Heard:
    """A listener that writes down what it hears."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def decided(self, what: str, value: str, why: str) -> None:
        self.lines.append(f"{what}={value} ({why})")

    def warned(self, text: str) -> None:
        self.lines.append(f"! {text}")

    def said(self, text: str) -> None:
        self.lines.append(text)

    def advance(self, steps: int = 1, **figures: float | str) -> None:
        self.lines.append(f"+{steps} {figures}")

    @contextmanager
    def task(self, description: str, total: int | None) -> Iterator[Heard]:
        self.lines.append(f"{description} of {total}")
        try:
            yield self
        finally:
            self.lines.append("end")


def say_everything() -> None:
    events.decided("threads", 2, "cores")
    events.warn("careful")
    events.say("hello")
    with events.task("work", 3) as bar:
        bar.advance(2, loss=0.5)


EVERYTHING = ["threads=2 (cores)", "! careful", "hello", "work of 3", "+2 {'loss': 0.5}", "end"]


def test_every_listener_hears_everything_while_it_listens() -> None:
    outer, inner = Heard(), Heard()
    with events.listening(outer):
        with events.listening(inner):
            say_everything()
        events.say("after")
    events.say("nobody hears this")
    assert inner.lines == EVERYTHING
    assert outer.lines == [*EVERYTHING, "after"]


def test_bars_end_and_listeners_go_when_something_fails() -> None:
    heard = Heard()
    with pytest.raises(ValueError, match="broken"), events.listening(heard), events.task("work"):
        raise ValueError("broken")
    events.say("nobody hears this")
    assert heard.lines == ["work of None", "end"]


def test_without_a_listener_warnings_reach_the_logger(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="kdeploy"):
        say_everything()
    assert [(record.levelname, record.message) for record in caplog.records] == [("WARNING", "careful")]


def test_the_log_of_a_run_has_a_line_with_the_time_for_each(tmp_path: Path) -> None:
    with events.listening(RunLog(tmp_path)):
        say_everything()
    with events.listening(RunLog(tmp_path)):
        events.say("later")
    lines = (tmp_path / "run.log").read_text(encoding="utf-8").splitlines()
    assert [line.partition(" ")[2] for line in lines] == [
        "threads: 2 (cores)",
        "warning: careful",
        "hello",
        "work ...",
        "work: done",
        "later",
    ]
    assert all(line[:4].isdigit() and line.partition(" ")[0].endswith("+00:00") for line in lines)


def test_the_log_does_not_call_done_what_failed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), events.listening(RunLog(tmp_path)), events.task("work"):
        raise ValueError("broken")
    assert (tmp_path / "run.log").read_text(encoding="utf-8").splitlines()[-1].endswith("work ...")
