"""Profiles of boards: what they say, how a machine is known to be one, and how it is compared."""

from __future__ import annotations

import pytest

from kdeploy import engines
from kdeploy.cli.exporting import _for_board
from kdeploy.errors import UserError
from kdeploy.machine import boards
from kdeploy.machine.boards.judging import judge_board, read_power_mode
from kdeploy.machine.conditions import Conditions
from kdeploy.quantize.schemes import choose_scheme

PI5 = {
    "board": "Raspberry Pi 5 Model B Rev 1.0",
    "processor": "Cortex-A76",
    "architecture": "aarch64",
    "instruction_sets": ["asimd", "asimddp"],
    "cores": {"logical": 4, "usable": 4},
}
CALM = Conditions(
    at_s=0.0,
    own_s=0.0,
    governors=("performance",),
    temperature_c={"cpu-thermal": 51.0},
    throttle_counts={"under-voltage": 0},
    throttle_states={"throttled": 0},
)


def judged(conditions=CALM, machine=PI5, name="rpi5", power_mode=None, recognised=True):
    found = judge_board(boards.find(name), machine, conditions, power_mode, recognised=recognised)
    return {finding.what: finding for finding in found}


@pytest.mark.parametrize("name", boards.names())
def test_what_a_profile_names_is_there(name):
    board = boards.find(name)
    assert board.name == name
    for one in board.use:
        assert one.engine in engines.names()
        assert (one.scheme is not None) == (one.precision == "int8")
        if one.scheme is not None:
            choose_scheme(one.scheme, frozenset())
    lines = [*board.use, board.threads, *board.checks, *board.warnings]
    assert all(line.source.startswith(("https://", "python benchmarks/")) for line in lines)


def test_the_boards_of_the_issue_are_known():
    assert {"rpi4", "rpi5", "jetson-orin-nano", "jetson-agx-orin", "x86-vnni", "x86-avx2"} <= set(boards.names())


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        (PI5, "rpi5"),
        ({**PI5, "board": "Raspberry Pi 4 Model B Rev 1.4", "instruction_sets": ["asimd"]}, "rpi4"),
        ({**PI5, "board": "NVIDIA Jetson Orin Nano Developer Kit"}, "jetson-orin-nano"),
        ({**PI5, "board": "NVIDIA Jetson AGX Orin Developer Kit"}, "jetson-agx-orin"),
        ({**PI5, "board": "Radxa ROCK 5B"}, None),
        ({"board": None, "architecture": "x86_64", "instruction_sets": ["avx2", "avx_vnni"]}, "x86-vnni"),
        ({"board": None, "architecture": "x86_64", "instruction_sets": ["avx2", "avx512f"]}, "x86-avx2"),
        ({"board": None, "architecture": "x86_64", "instruction_sets": []}, None),
    ],
)
def test_a_machine_is_recognised(machine, name):
    found = boards.recognise(machine)
    assert (None if found is None else found.name) == name


def test_a_calm_board_is_fine():
    found = judged()
    assert {found[what].level for what in ("governor", "throttling", "temperature", "threads")} == {"ok"}


def test_each_check_can_fail_and_says_what_to_do():
    restless = CALM.model_copy(
        update={
            "governors": ("ondemand",),
            "temperature_c": {"cpu-thermal": 81.0},
            "throttle_counts": {"under-voltage": 1},
        }
    )
    found = judged(restless)
    for what, said in (("governor", "ondemand"), ("temperature", "81 °C"), ("throttling", "under-voltage")):
        assert found[what].level == "note"
        assert said in found[what].detail
        assert found[what].fix
        assert found[what].source


def test_what_cannot_be_read_is_said():
    found = judged(Conditions(at_s=0.0, own_s=0.0))
    assert "does not let us read" in found["governor"].detail
    assert "does not let us read" in judged(name="jetson-orin-nano")["power mode"].detail


def test_power_modes():
    assert judged(name="jetson-agx-orin", power_mode="MAXN")["power mode"].level == "ok"
    assert "15W; for measurements: MAXN" in judged(name="jetson-agx-orin", power_mode="15W")["power mode"].detail


def test_the_power_mode_is_read_from_nvpmodel(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_power_mode() is None
    program = tmp_path / "nvpmodel"
    program.write_text("#!/bin/sh\necho 'NV Power Mode: MAXN_SUPER'\necho 2\n")
    program.chmod(0o755)
    assert read_power_mode() == "MAXN_SUPER"


def test_another_machine_is_called_that():
    assert "Cortex-A76" in judged(machine={**PI5, "board": None}, recognised=False)["another machine"].detail


def test_fewer_cores_than_suit_it():
    assert judged(machine={**PI5, "cores": {"logical": 4, "usable": 2}})["threads"].level == "note"


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "kdeploy" / "boards"
    folder.mkdir(parents=True)
    return folder


MINE = """about: A board of mine
recognised_by: {board: Radxa}
use: [{engine: onnxruntime, precision: float32, source: measured here}]
threads: {count: 8, source: measured here}
"""


def test_a_board_of_ones_own(own):
    (own / "rock5b.yaml").write_text(MINE)
    assert "rock5b" in boards.names()
    assert boards.find("rock5b").threads.count == 8
    assert boards.recognise({**PI5, "board": "Radxa ROCK 5B"}).name == "rock5b"
    assert boards.find(str(own / "rock5b.yaml")) == boards.find("rock5b")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MINE.replace("source: measured here}]", "}]"), "use.0.source"),
        (MINE.replace("count: 8", "count: 0"), "threads.count"),
        (MINE.replace("Radxa", "'['"), "no regular expression"),
        ("a: [", "no YAML"),
        ("- 1", "the file"),
        (MINE + "clock: 3\n", "clock"),
    ],
)
def test_a_profile_that_cannot_be_read_is_refused_by_name(own, text, said):
    (own / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=r"bad\.yaml") as caught:
        boards.find("bad")
    assert said in str(caught.value)


def test_an_unknown_board_gets_the_nearest():
    with pytest.raises(UserError, match="rpi5"):
        boards.find("rpi55")
    with pytest.raises(UserError, match="cannot be read"):
        boards.find("missing.yaml")


def test_export_takes_what_suits_the_board(tmp_path):
    found = _for_board({"board": "x86-avx2", "data": tmp_path})
    assert (found["engine"], found["precision"], found["scheme"]) == (["onnxruntime"], ["int8", "float32"], "x86-avx2")


def test_export_keeps_what_was_asked_for(tmp_path):
    found = _for_board({"board": "x86-avx2", "data": tmp_path, "precision": ["float32"], "scheme": "arm64"})
    assert (found["precision"], found["scheme"]) == (["float32"], "arm64")


def test_export_without_images_is_float32():
    assert _for_board({"board": "rpi5"})["precision"] == ["float32"]
    assert _for_board({"precision": ["int8"]}) == {"precision": ["int8"]}
