"""Recorded trees of /sys and /proc, in the small."""

from __future__ import annotations

from pathlib import Path


def write(root: Path, files: dict[str, str]) -> Path:
    """Each file under `root`, with the newline that the kernel ends it with."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return root


def zone(number: str, name: str, energy_uj: int, range_uj: int = 262_143_328_850) -> dict[str, str]:
    """A power zone, with the files beside it that are of no use here. 262143328850 is a real range: 2^32 - 1 steps."""
    folder = f"sys/class/powercap/intel-rapl:{number}"
    return {
        f"{folder}/name": name,
        f"{folder}/energy_uj": str(energy_uj),
        f"{folder}/max_energy_range_uj": str(range_uj),
        f"{folder}/enabled": "0",
        f"{folder}/constraint_0_name": "long_term",
        f"{folder}/constraint_0_power_limit_uw": "95000000",
    }


def chip(hwmon: int, channels: dict[int, tuple[str, str, str]]) -> dict[str, str]:
    """An INA3221: (label, mV, mA) by channel, and the sums of shunt voltages that the driver adds."""
    folder = f"sys/class/hwmon/hwmon{hwmon}"
    files = {f"{folder}/name": "ina3221", f"{folder}/in7_label": "sum of shunt voltages", f"{folder}/in7_input": "1360"}
    for channel, (label, millivolts, milliamperes) in channels.items():
        files |= {
            f"{folder}/in{channel}_label": label,
            f"{folder}/in{channel}_enable": "1",
            f"{folder}/in{channel}_input": millivolts,
            f"{folder}/curr{channel}_input": milliamperes,
            f"{folder}/shunt{channel}_resistor": "5000",
        }
    return files


PMIC = """ 3V7_WL_SW_A current(0)=0.04782057A
   3V3_SYS_A current(1)=0.04684464A
   1V8_SYS_A current(2)=0.17078780A
  DDR_VDD2_A current(3)=0.02049453A
  DDR_VDDQ_A current(4)=0.00000000A
   1V1_SYS_A current(5)=0.18933040A
    0V8_SW_A current(6)=0.32888840A
  VDD_CORE_A current(7)=0.92871990A
   3V3_DAC_A current(17)=0.00054945A
   3V3_ADC_A current(18)=0.00018315A
   0V8_AON_A current(16)=0.00586080A
      HDMI_A current(22)=0.01636140A
 3V7_WL_SW_V volt(8)=3.70534400V
   3V3_SYS_V volt(9)=3.31467300V
   1V8_SYS_V volt(10)=1.80903400V
  DDR_VDD2_V volt(11)=1.10292900V
  DDR_VDDQ_V volt(12)=0.61575030V
   1V1_SYS_V volt(13)=1.10512700V
    0V8_SW_V volt(14)=0.80292960V
  VDD_CORE_V volt(15)=0.72097620V
   3V3_DAC_V volt(20)=3.30952000V
   3V3_ADC_V volt(21)=3.30952000V
   0V8_AON_V volt(19)=0.79765500V
      HDMI_V volt(23)=5.16034000V
     EXT5V_V volt(24)=5.17105900V
      BATT_V volt(25)=0.00598290V"""
"""An idle Raspberry Pi 5, as printed by somebody's."""
