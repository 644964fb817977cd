"""INA3221: the power monitor on NVIDIA Jetson modules, one reading a rail, through sysfs.

Files and units: Documentation/hwmon/ina3221.rst of the Linux kernel: `in[123]_label`, `in[123]_input` in mV and
`curr[123]_input` in mA, a channel that is off answers ENODATA and says 0 in `in[123]_enable`. The chip is found by its
`name` among /sys/class/hwmon, since its number there and its address on the bus differ between boards and boots. Each
reading waits for the chip's next conversion. The kernels of JetPack 4 have a driver of NVIDIA's own with other names:
/sys/bus/i2c/drivers/ina3221x/*/iio:device*/ with `rail_name_N`, `in_voltageN_input` and `in_currentN_input`, N from 0.

Rails, by arch/arm64/boot/dts/nvidia of the kernel: Orin NX and Nano have VDD_IN, VDD_CPU_GPU_CV and VDD_SOC; AGX Orin
has VDD_GPU_SOC, VDD_CPU_CV, VIN_SYS_5V0 and, on a second chip, VDDQ_VDD2_1V8AO. VDD_IN is the whole module (Orin NX and
Nano, Xavier NX), and on the first Jetson Nano POM_5V_IN is the board's 5 V input. AGX modules have no such rail, and
whether their rails contain each other is not documented, so nothing is summed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kdeploy.bench.energy import sysfs
from kdeploy.bench.energy.base import Found, Meter, NotMeasured, Source

_WHOLE = {
    "VDD_IN": ("module", "the whole module, without the carrier board"),
    "POM_5V_IN": ("board", "the 5 V input of the whole board"),
}
_UNCONNECTED = {None, "", "NC"}


class Ina3221(Source):
    """The rails that have a name."""

    name = "ina3221"

    def find(self, root: Path) -> Found:
        meters: list[Meter] = []
        absent: dict[str, str] = {}
        for label, millivolts, milliamperes in (*_hwmon(root), *_iio(root)):
            name = f"{self.name} {label}"
            try:
                meters.append(Rail(name, label, millivolts, milliamperes))
            except NotMeasured as reason:
                absent[name] = str(reason)
        if not meters and not absent:
            folder = root / "sys/class/hwmon"
            absent[self.name] = f"{folder} has no ina3221 with named rails; NVIDIA Jetson modules have it"
        return Found(tuple(meters), absent)


class Rail(Meter):
    """The power of one rail; raises NotMeasured where it can't be read."""

    unit = "watts"

    def __init__(self, name: str, label: str, millivolts: Path, milliamperes: Path) -> None:
        self.name = name
        self.scope, self.covers = _WHOLE.get(label, ("rail", f"the rail {label} of the module alone"))
        self._millivolts, self._milliamperes = millivolts, milliamperes
        self.read()

    def read(self) -> float:
        return sysfs.number(self._millivolts) * sysfs.number(self._milliamperes) / 1e6


def _hwmon(root: Path) -> Iterator[tuple[str, Path, Path]]:
    """Label, millivolts and milliamperes of each connected channel."""
    for chip in sorted(root.glob("sys/class/hwmon/hwmon*")):
        if sysfs.text_or_none(chip / "name") != "ina3221":
            continue
        for channel in (1, 2, 3):
            label = sysfs.text_or_none(chip / f"in{channel}_label")
            off = sysfs.text_or_none(chip / f"in{channel}_enable") == "0"
            if label not in _UNCONNECTED and not off:
                yield str(label), chip / f"in{channel}_input", chip / f"curr{channel}_input"


def _iio(root: Path) -> Iterator[tuple[str, Path, Path]]:
    """The same, as the kernels of JetPack 4 show it."""
    for chip in sorted(root.glob("sys/bus/i2c/drivers/ina3221x/*/iio:device*")):
        for channel in (0, 1, 2):
            label = sysfs.text_or_none(chip / f"rail_name_{channel}")
            if label not in _UNCONNECTED:
                yield str(label), chip / f"in_voltage{channel}_input", chip / f"in_current{channel}_input"
