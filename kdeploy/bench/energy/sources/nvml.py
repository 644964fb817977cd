"""NVML: NVIDIA GPUs, each as one meter, whether the measured process uses it or not.

By the NVML API reference, `nvmlDeviceGetTotalEnergyConsumption` counts millijoules since the driver was loaded (Volta
and newer), and `nvmlDeviceGetPowerUsage` gives milliwatts of the GPU and its circuitry, on Ampere (but GA100) and newer
averaged over one second. How often the counter moves is not documented; readings that did not move are not counted. On
Jetson NVML starts, but supports neither: ina3221 is for these.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from kdeploy.bench import nvml
from kdeploy.bench.energy.base import Found, Meter, NotMeasured, Source

_COUNTER = "nvmlDeviceGetTotalEnergyConsumption"
_POWER = "nvmlDeviceGetPowerUsage"


class Nvml(Source):
    """All GPUs that NVML shows."""

    name = "nvml"

    def find(self, root: Path) -> Found:
        meters: list[Meter] = []
        absent: dict[str, str] = {}
        try:
            with nvml.started(root) as pynvml:
                for index in range(_count(pynvml)):
                    try:
                        meters.append(Gpu(index, root))
                    except NotMeasured as reason:
                        absent[f"{self.name} GPU {index}"] = str(reason)
        except NotMeasured as reason:
            absent[self.name] = str(reason)
        if not meters and not absent:
            absent[self.name] = "NVML shows no GPU"
        return Found(tuple(meters), absent)


class Gpu(Meter):
    """One GPU; raises NotMeasured where it gives neither energy nor power. It keeps NVML started until closed."""

    scope = "gpu"

    def __init__(self, index: int, root: Path) -> None:
        self._pynvml = nvml.start(root)
        try:
            self._handle = self._ask("nvmlDeviceGetHandleByIndex", index)
            model = self._ask("nvmlDeviceGetName", self._handle)
            self._function = self._supported()
        except NotMeasured:
            self.close()
            raise
        self.name = f"nvml GPU {index}"
        self.unit = "joules" if self._function == _COUNTER else "watts"
        self.covers = f"{model.decode() if isinstance(model, bytes) else model} with its memory, without the host"

    def read(self) -> float:
        return float(self._ask(self._function, self._handle)) / 1e3

    def close(self) -> None:
        self._pynvml.nvmlShutdown()

    def _supported(self) -> str:
        try:
            self._ask(_COUNTER, self._handle)
            return _COUNTER
        except NotMeasured:
            self._ask(_POWER, self._handle)
            return _POWER

    def _ask(self, function: str, argument: object) -> Any:
        try:
            return getattr(self._pynvml, function)(argument)
        except self._pynvml.NVMLError as error:
            raise NotMeasured(f"{function} failed: {error}") from None


def _count(pynvml: ModuleType) -> int:
    try:
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError as error:
        raise NotMeasured(f"nvmlDeviceGetCount failed: {error}") from None
