"""INA3221, on recorded trees of Jetson modules."""

from __future__ import annotations

import pytest

from kdeploy.bench.energy.base import NotMeasured
from kdeploy.bench.energy.sources.ina3221 import Ina3221
from tests.bench.energy.trees import chip, write

ORIN_NANO = {1: ("VDD_IN", "5016", "912"), 2: ("VDD_CPU_GPU_CV", "5016", "152"), 3: ("VDD_SOC", "5008", "264")}


def test_orin_nano(tmp_path):
    found = Ina3221().find(write(tmp_path, chip(1, ORIN_NANO) | {"sys/class/hwmon/hwmon0/name": "pwmfan"}))
    assert found.absent == {}
    assert [(meter.name, meter.scope, meter.unit) for meter in found.meters] == [
        ("ina3221 VDD_IN", "module", "watts"),
        ("ina3221 VDD_CPU_GPU_CV", "rail", "watts"),
        ("ina3221 VDD_SOC", "rail", "watts"),
    ]
    assert found.meters[0].read() == pytest.approx(5.016 * 0.912)
    assert "without the carrier board" in found.meters[0].covers


def test_agx_orin_has_two_chips_and_no_rail_of_the_whole_module(tmp_path):
    first = {1: ("VDD_GPU_SOC", "4968", "640"), 2: ("VDD_CPU_CV", "4968", "240"), 3: ("VIN_SYS_5V0", "4968", "1016")}
    second = {1: ("NC", "0", "0"), 2: ("VDDQ_VDD2_1V8AO", "4968", "216"), 3: ("", "", "")}
    found = Ina3221().find(write(tmp_path, chip(3, first) | chip(4, second)))
    assert found.absent == {}
    assert [meter.name.split()[1] for meter in found.meters] == [
        "VDD_GPU_SOC",
        "VDD_CPU_CV",
        "VIN_SYS_5V0",
        "VDDQ_VDD2_1V8AO",
    ]
    assert {meter.scope for meter in found.meters} == {"rail"}


def test_the_number_of_the_chip_does_not_matter(tmp_path):
    root = write(tmp_path, chip(17, ORIN_NANO))
    assert len(Ina3221().find(root).meters) == 3


def test_a_channel_that_is_off_is_left_out(tmp_path):
    root = write(tmp_path, chip(1, ORIN_NANO) | {"sys/class/hwmon/hwmon1/in3_enable": "0"})
    (root / "sys/class/hwmon/hwmon1/in2_label").unlink()
    assert [meter.name for meter in Ina3221().find(root).meters] == ["ina3221 VDD_IN"]


def test_a_rail_that_gives_no_current(tmp_path):
    root = write(tmp_path, chip(1, ORIN_NANO))
    (root / "sys/class/hwmon/hwmon1/curr2_input").unlink()
    found = Ina3221().find(root)
    assert len(found.meters) == 2
    assert "curr2_input: No such file" in found.absent["ina3221 VDD_CPU_GPU_CV"]


def test_a_rail_that_dies(tmp_path):
    root = write(tmp_path, chip(1, ORIN_NANO))
    rail = Ina3221().find(root).meters[0]
    write(root, {"sys/class/hwmon/hwmon1/in1_input": ""})
    with pytest.raises(NotMeasured, match="in1_input holds '', not a number"):
        rail.read()


def test_the_names_of_jetpack_4(tmp_path):
    folder = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    files = {f"{folder}/rail_name_0": "POM_5V_IN", f"{folder}/rail_name_1": "POM_5V_GPU"}
    for channel, milliamperes in enumerate(["420", "40"]):
        files[f"{folder}/in_voltage{channel}_input"] = "5000"
        files[f"{folder}/in_current{channel}_input"] = milliamperes
    whole, gpu = Ina3221().find(write(tmp_path, files)).meters
    assert (whole.name, whole.scope, whole.read()) == ("ina3221 POM_5V_IN", "board", pytest.approx(2.1))
    assert (gpu.scope, gpu.read()) == ("rail", pytest.approx(0.2))


def test_a_machine_without(tmp_path):
    assert "NVIDIA Jetson modules have it" in Ina3221().find(tmp_path).absent["ina3221"]
