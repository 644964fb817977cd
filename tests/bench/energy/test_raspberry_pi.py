"""The power chip of the Raspberry Pi 5, with a vcgencmd that prints what was recorded."""

from __future__ import annotations

import pytest

from kdeploy.bench.energy.base import NotMeasured
from kdeploy.bench.energy.sources import raspberry_pi
from kdeploy.bench.energy.sources.raspberry_pi import RaspberryPi, watts
from tests.bench.energy.trees import PMIC, write

IDLE_W = (
    0.04782057 * 3.705344
    + 0.04684464 * 3.314673
    + 0.1707878 * 1.809034
    + 0.02049453 * 1.102929
    + 0.1893304 * 1.105127
    + 0.3288884 * 0.8029296
    + 0.9287199 * 0.7209762
    + 0.00054945 * 3.30952
    + 0.00018315 * 3.30952
    + 0.0058608 * 0.797655
    + 0.0163614 * 5.16034
)


def board(root, script, model="Raspberry Pi 5 Model B Rev 1.0\0"):
    write(root, {"proc/device-tree/model": model, "usr/bin/vcgencmd": f"#!/bin/sh\n{script}"})
    (root / "usr/bin/vcgencmd").chmod(0o755)
    return root


def printing(text):
    return f"[ \"$1\" = pmic_read_adc ] || exit 1\ncat <<'END'\n{text}\nEND"


def test_the_rails_are_summed(tmp_path):
    (chip,) = RaspberryPi().find(board(tmp_path, printing(PMIC))).meters
    assert (chip.name, chip.scope, chip.unit) == ("raspberry_pi power chip", "board rails", "watts")
    assert chip.read() == pytest.approx(IDLE_W)
    assert "USB" in chip.covers


def test_voltages_without_a_current_are_left_out():
    assert watts(PMIC + "\n     ODD_A current(30)=9.00000000A") == pytest.approx(IDLE_W)


def test_a_board_whose_chip_measures_no_currents(tmp_path):
    said = 'error=1 error_msg="Command not registered"'
    found = RaspberryPi().find(board(tmp_path, printing(said), model="Raspberry Pi 4 Model B Rev 1.4\0"))
    assert found.meters == ()
    assert "Command not registered" in found.absent["raspberry_pi"]
    assert found.absent["raspberry_pi"].endswith("a Raspberry Pi 5 does")


@pytest.mark.parametrize("said", ["VCHI initialization failed", "Can't open device file: /dev/vcio"])
def test_a_user_outside_of_the_group_video(tmp_path, said):
    found = RaspberryPi().find(board(tmp_path, f'echo "{said}" >&2; exit 255'))
    assert "sudo usermod -aG video $USER" in found.absent["raspberry_pi"]


def test_vcgencmd_is_not_installed(tmp_path):
    found = RaspberryPi().find(write(tmp_path, {"proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0"}))
    assert found.absent == {"raspberry_pi": "vcgencmd is not installed; type: sudo apt install raspi-utils"}


def test_vcgencmd_that_can_not_be_started(tmp_path):
    board(tmp_path, "").joinpath("usr/bin/vcgencmd").chmod(0o644)
    assert "can't be started: Permission denied" in RaspberryPi().find(tmp_path).absent["raspberry_pi"]


def test_vcgencmd_that_does_not_answer(tmp_path, monkeypatch):
    (chip,) = RaspberryPi().find(board(tmp_path, printing(PMIC))).meters
    board(tmp_path, "exec sleep 5")
    monkeypatch.setattr(raspberry_pi, "_TIMEOUT_S", 0.1)
    with pytest.raises(NotMeasured, match="did not answer"):
        chip.read()


def test_another_machine(tmp_path):
    found = RaspberryPi().find(write(tmp_path, {"proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit"}))
    assert "does not say that this is a Raspberry Pi" in found.absent["raspberry_pi"]
