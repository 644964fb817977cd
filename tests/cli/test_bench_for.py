"""`kdeploy bench --for BOARD`: its threads, and what is told of it before measuring."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdeploy.machine import boards, conditions, cores, host
from kdeploy.machine.conditions import Conditions
from tests.engines import models

BRIEF = ("--min-time", "0.05", "--min-count", "70", "--json", "-")
PI5 = {"board": "Raspberry Pi 5 Model B Rev 1.0"}
HOT = Conditions(
    at_s=0.0,
    own_s=0.0,
    governors=("ondemand",),
    temperature_c={"cpu-thermal": 51.0},
    throttle_counts={"under-voltage since boot": 1},
    throttle_states={"under-voltage": 0},
)


@pytest.fixture
def file(empty) -> Path:
    return models.save_classifier(Path("one.onnx"), in_graph=False)


def warnings(answer) -> list[str]:
    """What was said before anything was measured."""
    return [" ".join(line.split()) for line in answer.err.splitlines() if "rpi5: " in line]


def test_the_boards_threads_as_far_as_there_are_cores(kdeploy, file):
    answer = kdeploy("bench", "one.onnx", *BRIEF, "--for", "rpi5")
    assert answer.status == 0, answer.err
    threads = min(4, cores())
    assert answer.json["measurements"][0]["threads"] == threads
    why = "for rpi5" if cores() >= 4 else f"4 suit rpi5, but {cores()} cores may be used here"
    assert f"· threads: {threads} ({why})" in answer.err


def test_threads_that_were_asked_for_stay(kdeploy, file):
    answer = kdeploy("bench", "one.onnx", *BRIEF, "--for", "rpi5", "--threads", "1")
    assert answer.json["measurements"][0]["threads"] == 1
    assert "threads:" not in answer.err


def test_another_machine_is_warned_of(kdeploy, file):
    said = warnings(kdeploy("bench", "one.onnx", *BRIEF, "--for", "rpi5"))
    assert sum("rpi5: another machine: This machine is " in line for line in said) == 1
    assert any("to know: Its power chip sees the board's own rails" in line for line in said)


def test_what_does_not_hold_is_told_before_measuring(kdeploy, file, monkeypatch):
    fingerprint = host.fingerprint()
    monkeypatch.setattr(host, "fingerprint", lambda: {**fingerprint, **PI5})
    monkeypatch.setattr(conditions, "read", lambda: HOT)
    monkeypatch.setattr("kdeploy.bench.measure.run_job", lambda *_: pytest.fail("nothing was to be measured"))
    Path("one.onnx").unlink()
    answer = kdeploy("bench", "one.onnx", *BRIEF, "--for", "rpi5")
    assert answer.status == 2
    said = warnings(answer)
    governor = "rpi5: governor: ondemand; for measurements: performance. echo performance | sudo tee"
    assert sum(governor in line for line in said) == 1
    assert any("rpi5: throttling: under-voltage since boot" in line for line in said)
    assert not any("temperature" in line or "another machine" in line for line in said)


def test_what_cannot_be_read_is_one_line(kdeploy, file, monkeypatch):
    monkeypatch.setattr(conditions, "read", lambda: Conditions(at_s=0.0, own_s=0.0))
    said = warnings(kdeploy("bench", "one.onnx", *BRIEF, "--for", "rpi5"))
    (line,) = [line for line in said if "does not let us read" in line]
    assert line.endswith("does not let us read what to check: governor, throttling, temperature.")


def test_without_it_nothing_is_asked_of_boards(kdeploy, file, monkeypatch):
    monkeypatch.setattr(boards, "recognise", lambda machine: pytest.fail("a board was looked for"))
    answer = kdeploy("bench", "one.onnx", *BRIEF)
    assert answer.status == 0, answer.err
    assert answer.json["measurements"][0]["threads"] == 1


def test_a_board_that_there_is_not(kdeploy, file):
    answer = kdeploy("bench", "one.onnx", *BRIEF, "--for", "rpi6")
    assert answer.status == 2
    assert answer.said.startswith("There is no board 'rpi6'. Did you mean 'rpi")
