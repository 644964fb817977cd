"""Progress, decisions and warnings: moving bars on a terminal, sparse lines elsewhere."""

import io
import re

import pytest
from rich.console import Console

from kdeploy import events
from kdeploy.cli import console as room
from kdeploy.cli.console import SteadyConsole, Terminal, duration


class Clock:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(room, "time", clock)
    return clock


def plain() -> Console:
    return Console(file=io.StringIO(), width=80)


def terminal() -> Console:
    return Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None, legacy_windows=False)


def lines(console: Console) -> list[str]:
    return console.file.getvalue().splitlines()


def interrupted(listener: Terminal, clock: Clock) -> None:
    with listener.task("student", 10) as bar:
        clock.now += 3
        bar.advance(1 // 0)


def test_a_long_task_in_a_file_is_a_line_every_quarter_of_a_minute(clock):
    console = plain()
    with Terminal(console).task("student", 100) as bar:
        for _ in range(100):
            clock.now += 0.4
            bar.advance(loss=0.5, accuracy="97.0%")
    assert lines(console) == [
        "  student: 38 of 100, 25 s left  loss 0.5  accuracy 97.0%",
        "  student: 76 of 100, 10 s left  loss 0.5  accuracy 97.0%",
        "  student: done in 40 s  loss 0.5  accuracy 97.0%",
    ]


def test_steps_of_an_earlier_run_do_not_count_in_the_time_left(clock):
    console = plain()
    with Terminal(console).task("student", 100) as bar:
        bar.advance(60)
        clock.now += 20
        bar.advance(20)
    assert lines(console)[0] == "  student: 80 of 100, 20 s left"


def test_a_short_task_in_a_file_says_nothing(clock):
    console = plain()
    with Terminal(console).task("build", None):
        clock.now += 1
    assert lines(console) == []


def test_a_task_within_another_has_no_line_of_its_own_in_a_file(clock):
    console = plain()
    with Terminal(console).task("short", None):
        clock.now += 1
    listener = Terminal(console)
    with listener.task("export teacher", None), listener.task("exporting to ONNX", 2):
        clock.now += 6
    assert lines(console) == ["  export teacher: done in 6 s"]


def test_a_task_that_failed_is_not_called_done(clock):
    console = plain()
    with pytest.raises(ZeroDivisionError):
        interrupted(Terminal(console), clock)
    assert lines(console) == []


def test_a_decision_is_said_once_and_a_warning_each_time():
    console = plain()
    with events.listening(Terminal(console)):
        for _ in range(2):
            events.decided("device", "cpu", "no GPU [here]")
            events.warn("it is warm")
        events.say("done")
    assert lines(console) == ["· device: cpu (no GPU [here])", "! it is warm", "! it is warm", "- done"]


def test_the_time_left_is_shown_where_steps_are_slow(clock):
    """A look each minute: too seldom for Rich's own reckoning."""
    console = Console(
        file=io.StringIO(),
        width=120,
        force_terminal=True,
        color_system=None,
        legacy_windows=False,
        get_time=clock.monotonic,
    )
    listener = Terminal(console)
    with listener.task("student", 10) as bar:
        for _ in range(4):
            clock.now += 60
            bar.advance(1, loss=0.5)
        listener._progress.refresh()
    assert re.search(r"\b6 min left +loss 0.5", console.file.getvalue())


def test_bars_on_a_terminal_leave_one_line_a_task(clock):
    console = terminal()
    listener = Terminal(console)
    with listener.task("export teacher", None):
        clock.now += 3
        with listener.task("exporting to ONNX", 2) as inner:
            clock.now += 3
            inner.advance()
            listener.said("half of it")
            inner.advance()
    with listener.task("build", None):
        clock.now += 0.1
    sent = console.file.getvalue()
    assert "exporting to ONNX" in sent, "the inner task was shown"
    shown = sent.rpartition("half of it")[2]
    assert "✓ export teacher" in shown
    assert "✓ exporting" not in shown
    assert "✓ build" not in sent
    assert "\x1b[?25h" in sent, "the cursor is back"


def test_a_bar_that_was_interrupted_is_no_success(clock):
    console = terminal()
    with pytest.raises(ZeroDivisionError):
        interrupted(Terminal(console), clock)
    assert "✗ student" in console.file.getvalue()
    assert "✓" not in console.file.getvalue()
    assert "\x1b[?25h" in console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_bar_stays_in_its_line_whatever_it_has_to_say(width, clock):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False)
    with Terminal(console).task("measure student-onnxruntime-float32", 10) as bar:
        clock.now += 3
        bar.advance(5, loss=0.123456, accuracy="97.0%", **{"img/s": "12345"}, validation="98.7%")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "\n", console.file.getvalue()).replace("\r", "\n")
    assert max(map(len, text.splitlines())) <= width - 3, "room for ^C"


def test_a_dumb_terminal_gets_lines(clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    with Terminal(console).task("student", 1) as bar:
        clock.now += 5
        bar.advance()
    assert lines(console) == ["  student: done in 5 s"]


def test_a_file_is_not_folded_like_a_terminal(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert SteadyConsole(file=io.StringIO()).width == 160
    monkeypatch.setenv("COLUMNS", "70")
    assert SteadyConsole(file=io.StringIO()).width == 70, "asked for"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (120, "2 min"), (5400, "1.5 h")])
def test_durations(seconds, text):
    assert duration(seconds) == text
