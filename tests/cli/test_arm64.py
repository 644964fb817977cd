"""From export to report on a 64-bit Arm machine over real SSH, and what may happen to it meanwhile.

The machine is emulated: accuracy and size are measured there, and no time. It has no network, so that the environment
is made from wheels that are carried along; with a network it is made in tests/devices/test_first_table.py.
"""

import json
import os
import pty
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.answer import COMMAND, environment, in_a_process
from tests.cli.test_interrupts import Started
from tests.devices.machine import Machine

pytestmark = pytest.mark.arm64
ENGINE = "runs/quickstart/engines/student-onnxruntime-float32"


@pytest.fixture(scope="module")
def board(device: Machine, finished) -> Iterator[Machine]:
    """The machine with an environment, made without its network."""
    device.reset()
    device.offline()
    answer = in_a_process(
        ["target", "setup", device.target, "--json", "doctor.json"], finished[0], KDEPLOY_SSH=device.ssh_command
    )
    assert answer.status == 0, answer.err
    assert "packages: carried along from here (" in answer.err
    found = json.loads((finished[0] / "doctor.json").read_text())
    assert found["machine"]["architecture"] == "aarch64"
    assert "engine onnxruntime" in {one["what"] for one in found["findings"] if one["level"] == "ok"}
    yield device
    device.reset()


@pytest.fixture
def at(board, place, monkeypatch) -> Machine:
    """The board, from a folder with a finished run."""
    monkeypatch.setenv("KDEPLOY_SSH", board.ssh_command)
    return board


def assert_nothing_is_left(machine: Machine) -> None:
    deadline = time.monotonic() + 20
    while machine.processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert machine.processes() == []
    assert {path.split("/")[1] for path in machine.files() if path.count("/") == 1} <= {"files", "state.json", "venv"}
    assert machine.files("/tmp") == []


def when_measuring(machine: Machine) -> None:
    deadline = time.monotonic() + 120
    while not any("kdeploy.bench.child" in process.command for process in machine.processes()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@contextmanager
def cut_while_measuring(machine: Machine, *, back_after_s: float | None) -> Iterator[None]:
    """The connection drops as soon as something is measured there. back_after_s: None: it does not come back."""

    def cut() -> None:
        when_measuring(machine)
        machine.cut()
        if back_after_s is not None:
            time.sleep(back_after_s)
            machine.restore()

    thread = threading.Thread(target=cut)
    thread.start()
    yield
    thread.join()


def test_from_export_to_report(at, place, kdeploy):
    name = f"127.0.0.1-{at.port}"
    exported = kdeploy("export", "runs/quickstart", "--target", at.target, "--json", "-")
    assert exported.status == 0, exported.err
    built = {one["row"]: one for one in exported.json["engines"]}
    assert built["student-onnxruntime-int8"]["scheme"] == "arm64"
    assert all(one["built_on"]["architecture"] == "aarch64" for one in built.values())
    manifest = place / f"runs/quickstart/devices/{name}/engines/student-onnxruntime-int8/manifest.json"
    assert json.loads(manifest.read_text())["details"]["built_on"]["architecture"] == "aarch64"

    measured = kdeploy("bench", "runs/quickstart", "--target", at.target, "--json", "-")
    assert measured.status == 0, measured.err
    found = {one["name"]: one for one in measured.json["measurements"]}
    assert set(found) == set(built)
    here = json.loads((place / "runs/quickstart/bench/student-onnxruntime-float32.json").read_text())
    there = found["student-onnxruntime-float32"]
    assert there["accuracy"]["predictions"] == here["accuracy"]["predictions"], "the same network, image by image"
    assert there["size_bytes"] == here["size_bytes"]
    assert there["machine"]["emulation"].startswith("qemu-aarch64")
    assert there["emulated"].startswith("qemu-aarch64")
    assert there["latency"] == []
    assert there["memory"] is None
    assert "not measured: alone-pytorch, student-pytorch, teacher-pytorch (the device has no pytorch)" in measured.err

    told = kdeploy("report", "runs/quickstart")
    assert told.status == 0
    assert f"On {name}:" in told.out
    page = (place / "runs/quickstart/report.html").read_text()
    assert "On other machines" in page
    assert name in page
    assert_nothing_is_left(at)


def test_a_short_cut_is_mended(at, kdeploy):
    with cut_while_measuring(at, back_after_s=3):
        answer = kdeploy("bench", ENGINE, "--target", at.target, "--json", "-")
    assert answer.status == 0, answer.err
    assert "dropped: trying again for" in answer.err
    assert f"connected to {at.target} again" in answer.err
    assert answer.json["measurements"][0]["accuracy"]["samples"] == 359
    assert_nothing_is_left(at)


def test_a_long_cut_ends_it_there(at, place, kdeploy, monkeypatch):
    monkeypatch.setenv("KDEPLOY_LEASE_S", "5")

    with cut_while_measuring(at, back_after_s=None):
        answer = kdeploy("bench", ENGINE, "--target", at.target, "--out", "kept")
    assert answer.status == 5
    assert answer.said == (
        f"{at.target} was out of reach for longer than 5 s, and has ended the run by itself; nothing of it is left "
        "there. Start it again."
    )
    assert not Path("kept").exists()
    assert_nothing_is_left(at)
    at.restore()


def test_ctrl_c_leaves_nothing_running_there(at, place):
    running = Started(["bench", ENGINE, "--target", at.target], place)
    try:
        status, err = running.when(
            lambda: any("kdeploy.bench.child" in process.command for process in at.processes()), signal.SIGINT
        )
    finally:
        running.end()
    assert status == 130
    assert err.splitlines()[-1] == f"kdeploy: interrupted. To go on: kdeploy bench {ENGINE} --target {at.target}"
    assert "Traceback" not in err
    assert at.processes() == [], "it was ended at once"
    assert_nothing_is_left(at)


def in_a_terminal(words: list[str], folder: Path, **more: str) -> tuple[int, str]:
    """The status of a command that has a terminal, and what it wrote there."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.execvpe(COMMAND[0], [*COMMAND, *words], environment(**more))
    written = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        written += part
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), written.decode(errors="replace")


def test_a_password_is_asked_for_once(at, place):
    """In a terminal there is one connection, however many things are done over it, and it ends with the command."""
    before = at.accepted
    words = ["bench", "runs/quickstart", "--target", at.target]
    status, written = in_a_terminal(words, place, KDEPLOY_SSH=at.ssh_command)
    assert status == 0, written
    assert "emulated" in written
    assert at.accepted - before == 1
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [command for command in commands if b"kdeploy-ssh-" in command]
    assert_nothing_is_left(at)


def test_a_short_cut_is_mended_where_the_connection_is_shared(at, place):
    with cut_while_measuring(at, back_after_s=3):
        status, written = in_a_terminal(["bench", ENGINE, "--target", at.target], place, KDEPLOY_SSH=at.ssh_command)
    assert status == 0, written
    assert "dropped: trying again for" in written
    assert_nothing_is_left(at)


def test_a_full_disk_is_said(at, kdeploy):
    """Where a file does not fit, and where the work has no room."""
    Path("large.onnx").write_bytes(os.urandom(100_000))
    with at.disk(30_000):
        answer = kdeploy("bench", "large.onnx", "--target", at.target)
    assert answer.status == 2
    assert "No space left on device in /home/pi/.kdeploy-target" in answer.said
    assert "`kdeploy target clean` removes what kdeploy keeps on it" in answer.said
    with at.disk(30_000):
        answer = kdeploy("bench", ENGINE, "--target", at.target)
    assert answer.status == 2
    assert "disk is full" in answer.said or "No space left on device" in answer.said
    assert_nothing_is_left(at)
    assert kdeploy("bench", ENGINE, "--target", at.target).status == 0, "there is room again"


def test_clean_leaves_nothing(at, kdeploy):
    """The last one: the next would have to make the environment again."""
    answer = kdeploy("target", "clean", at.target)
    assert answer.status == 0
    assert "removed /home/pi/.kdeploy-target" in answer.out
    assert at.files() == []
    again = kdeploy("bench", ENGINE, "--target", at.target)
    assert again.status == 5
    assert again.said.endswith(f"Type: kdeploy target setup {at.target}")
