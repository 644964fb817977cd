"""What the library says on a device, heard at home."""

import json
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from kdeploy import events
from kdeploy.targets import relay


class Home:
    """A listener that keeps what it hears, tasks by their depth."""

    def __init__(self):
        self.heard = []
        self.steps = {}
        self.depth = 0

    def decided(self, *said):
        self.heard.append(said)

    def warned(self, text):
        self.heard.append(text)

    def said(self, text):
        self.heard.append(text)

    @contextmanager
    def task(self, description, total):
        self.heard.append(("begin", self.depth, description, total))
        self.depth += 1
        home = self

        class Bar:
            def advance(self, steps=1, **figures):
                home.steps.setdefault(description, []).append((steps, figures))

        try:
            yield Bar()
        except BaseException:
            self.heard.append(("failed", description))
            raise
        else:
            self.heard.append(("done", description))
        finally:
            self.depth -= 1


@pytest.fixture
def home():
    listener = Home()
    with events.listening(listener):
        yield listener


@pytest.fixture
def said(tmp_path) -> Path:
    return tmp_path / "events"


def replayed(text: str) -> None:
    with relay.Replay() as replay:
        replay.hear(text)


def test_everything_is_said_again(said, home):
    with relay.recording(said):
        events.decided("scheme", "arm64", "the processor has it")
        events.warn("hot")
        events.say("Grüße")
    home.heard.clear()
    replayed(said.read_text(encoding="utf-8"))
    assert home.heard == [("scheme", "arm64", "the processor has it"), "hot", "Grüße"]


def record_tasks(said: Path) -> None:
    with relay.recording(said), suppress(KeyError), events.task("outer", 2) as bar:
        with events.task("inner", None):
            pass
        bar.advance(1, loss=0.5)
        raise KeyError


def test_tasks_within_tasks_and_one_that_fails(said, home):
    record_tasks(said)
    home.heard.clear()
    home.steps.clear()
    replayed(said.read_text())
    outer, inner = ("begin", 0, "outer", 2), ("begin", 1, "inner", None)
    assert home.heard == [outer, inner, ("done", "inner"), ("failed", "outer")]
    assert home.steps == {"outer": [(1, {"loss": 0.5})]}


def test_what_is_still_open_when_the_device_is_gone_fails(home):
    replayed('["begin", 0, "measure", 5]\n["begin", 1, "warm up", null]\n')
    assert home.heard[2:] == [("failed", "warm up"), ("failed", "measure")]


def test_small_steps_are_gathered_and_none_is_lost(said):
    with relay.recording(said), events.task("calls", 10_000) as bar:
        for number in range(10_000):
            bar.advance(ms=float(number))
    lines = [json.loads(line) for line in said.read_text().splitlines()]
    steps = [line for line in lines if line[0] == "advance"]
    assert sum(line[2] for line in steps) == 10_000
    assert len(steps) < 100
    assert steps[-1][3] == {"ms": 9999.0}


@pytest.mark.parametrize("path", ["/dev/full", "/nonexistent/events"])
def test_a_full_disk_stops_no_work(path):
    done = []
    with relay.recording(Path(path)), events.task("work", 2) as bar:
        events.say("half of it")
        bar.advance()
        done.append("all of it")
    assert done == ["all of it"]


def test_lines_that_a_full_disk_cut_off_are_left_out(home):
    replayed('["begin", 0, "a", 1]\n["say", "cut o\n["advance", 7, 1, {}]\n["end", 7, false]\n["say", "whole"]\n')
    assert home.heard == [("begin", 0, "a", 1), "whole", ("failed", "a")]


def test_a_figure_of_numpy_is_a_number(said):
    import numpy as np

    with relay.recording(said), events.task("calls", 1) as bar:
        bar.advance(1, ms=np.float32(0.5))
    assert '{"ms": 0.5}' in said.read_text()
