"""The README takes a newcomer with a Raspberry Pi to a table in five commands: here they are run, but for the host."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.devices.machine import Machine

pytestmark = pytest.mark.arm64
ROOT = Path(__file__).parents[2]
HOST = "ssh://pi@raspberrypi.local"


def five_commands() -> list[str]:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return readme.split("<!-- with a Raspberry Pi -->")[1].split("```")[1].removeprefix("text\n").strip().splitlines()


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A folder like this checkout, without runs."""
    folder = tmp_path / "kdeploy"
    folder.mkdir()
    for entry in ROOT.iterdir():
        if entry.name != "runs":
            (folder / entry.name).symlink_to(entry)
    return folder


def test_from_nothing_to_a_table(clean_device: Machine, checkout: Path):
    commands = five_commands()
    assert len(commands) == 5
    environment = {**os.environ, "KDEPLOY_SSH": clean_device.ssh_command, "COLUMNS": "120"}
    for command in commands:
        done = subprocess.run(
            command.replace(HOST, clean_device.target),
            cwd=checkout,
            env=environment,
            shell=True,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    table = done.stdout
    assert re.search(r"student · ONNX Runtime int8 +9\d\.\d %", table), "it has learnt its digits"
    assert "emulated" in table
    assert not clean_device.processes()
    assert sorted(path for path in clean_device.files() if "/" not in path) == [".kdeploy-target"]
    assert {path.split("/")[1] for path in clean_device.files() if path.count("/") == 1} == {
        "files",
        "state.json",
        "venv",
    }
    measured = sorted(path.name for path in checkout.glob("runs/quickstart/devices/*/bench/*.json"))
    assert measured == [
        "student-onnxruntime-float32.json",
        "student-onnxruntime-int8.json",
        "teacher-onnxruntime-float32.json",
    ]
