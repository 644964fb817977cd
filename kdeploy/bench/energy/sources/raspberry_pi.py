"""The power chip of the Raspberry Pi 5, through `vcgencmd pmic_read_adc`.

It prints one line a channel, `VDD_CORE_A current(7)=0.75012000A` or `VDD_CORE_V volt(15)=0.72097620V`; a rail is a pair
of the same name. Raspberry Pi Ltd does not document the command: the form is that of printed outputs of Raspberry Pi
OS (twelve pairs, and the voltages EXT5V_V and BATT_V without a current). Not documented either, so not known: how long
a reading is averaged, how exact it is, and whether 3V3_DAC and 3V3_ADC (about a milliwatt each) are fed from 3V3_SYS
and so counted twice. Boards before the Raspberry Pi 5 measure no currents.

Each reading starts a process, the dearest of all meters; the cost is stated with the result.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from kdeploy.bench.energy import sysfs
from kdeploy.bench.energy.base import Found, Meter, NotMeasured, Source

_CHANNEL = re.compile(r"^\s*(\S+)_([AV])\s+(?:current|volt)\(\d+\)=([0-9.]+)[AV]\s*$", re.MULTILINE)
_PLACES = ("usr/bin/vcgencmd", "opt/vc/bin/vcgencmd")
_TIMEOUT_S = 2.0


class RaspberryPi(Source):
    """The power chip, where the device tree says that this is a Raspberry Pi."""

    name = "raspberry_pi"

    def find(self, root: Path) -> Found:
        model = root / "proc/device-tree/model"
        if "Raspberry Pi" not in (sysfs.text_or_none(model) or ""):
            return Found(absent={self.name: f"{model} does not say that this is a Raspberry Pi"})
        tool = next((root / place for place in _PLACES if (root / place).is_file()), None)
        if tool is None:
            return Found(absent={self.name: "vcgencmd is not installed; type: sudo apt install raspi-utils"})
        try:
            return Found((PowerChip(f"{self.name} power chip", tool),))
        except NotMeasured as reason:
            return Found(absent={self.name: str(reason)})


class PowerChip(Meter):
    """The sum of its rails; raises NotMeasured where it measures none."""

    scope = "board rails"
    covers = "the rails behind the board's power chip, without its losses and without what runs on 5 V: USB, HATs, fan"
    unit = "watts"

    def __init__(self, name: str, tool: Path) -> None:
        self.name = name
        self._command = [str(tool), "pmic_read_adc"]
        self.read()

    def read(self) -> float:
        try:
            done = subprocess.run(
                self._command, capture_output=True, encoding="utf-8", errors="replace", timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise NotMeasured(f"vcgencmd pmic_read_adc did not answer within {_TIMEOUT_S:.0f} s") from None
        except OSError as error:
            raise NotMeasured(f"{self._command[0]} can't be started: {error.strerror}") from None
        return watts(done.stdout + done.stderr)


def watts(printed: str) -> float:
    """The sum over the rails that have both a current and a voltage. Raises NotMeasured where there is none."""
    channels = {(rail, kind): float(value) for rail, kind, value in _CHANNEL.findall(printed)}
    rails = [rail for rail, kind in channels if kind == "A" and (rail, "V") in channels]
    if not rails:
        raise NotMeasured(_why(printed))
    return sum(channels[rail, "A"] * channels[rail, "V"] for rail in rails)


def _why(printed: str) -> str:
    said = " ".join(printed.split()) or "nothing"
    if "vcio" in printed or "VCHI" in printed:
        return (
            f"vcgencmd pmic_read_adc said {said!r}; type: sudo usermod -aG video $USER, then log in again "
            "(a container needs --device /dev/vcio)"
        )
    return f"vcgencmd pmic_read_adc named no current and voltage of a rail, it said {said!r}; a Raspberry Pi 5 does"
