"""NVML, with a stand-in for the module pynvml: there is no GPU where these tests run."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from kdeploy.bench import nvml
from kdeploy.bench.energy.base import NotMeasured
from kdeploy.bench.energy.sources.nvml import Nvml
from tests.bench.energy.trees import write


class NVMLError(Exception):
    pass


class Pynvml(ModuleType):
    """The functions of NVML that are used, over a list of GPUs; it counts starts against shutdowns."""

    NVMLError = NVMLError

    def __init__(self, gpus=(), broken=False):
        super().__init__("pynvml")
        self.gpus, self.broken, self.starts = list(gpus), broken, 0

    def nvmlInit(self):
        if self.broken:
            raise NVMLError("Driver Not Loaded")
        self.starts += 1

    def nvmlShutdown(self):
        self.starts -= 1

    def nvmlDeviceGetCount(self):
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index):
        return self.gpus[index]

    def nvmlDeviceGetName(self, gpu):
        return gpu["name"]

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu):
        return self._value(gpu, "millijoules")

    def nvmlDeviceGetPowerUsage(self, gpu):
        return self._value(gpu, "milliwatts")

    def nvmlDeviceGetComputeRunningProcesses(self, gpu):
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self._value(gpu, "processes")]

    def _value(self, gpu, key):
        if key not in gpu:
            raise NVMLError("Not Supported")
        return gpu[key]


@pytest.fixture
def machine(tmp_path):
    return write(tmp_path, {"proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.124.06"})


@pytest.fixture
def install(monkeypatch):
    def put(module):
        monkeypatch.setitem(sys.modules, "pynvml", module)
        return module

    return put


def test_a_counter_where_there_is_one_else_power(machine, install):
    library = install(
        Pynvml([{"name": "NVIDIA H100", "millijoules": 7_000_500}, {"name": b"Tesla P4", "milliwatts": 6_250}])
    )
    found = Nvml().find(machine)
    assert found.absent == {}
    assert [(one.name, one.scope, one.unit) for one in found.meters] == [
        ("nvml GPU 0", "gpu", "joules"),
        ("nvml GPU 1", "gpu", "watts"),
    ]
    assert [one.read() for one in found.meters] == [pytest.approx(7_000.5), pytest.approx(6.25)]
    assert found.meters[1].covers.startswith("Tesla P4 with its memory")
    assert library.starts == 2
    for meter in found.meters:
        meter.close()
    assert library.starts == 0


def test_a_gpu_that_tells_nothing(machine, install):
    library = install(Pynvml([{"name": "Orin (nvgpu)"}]))
    found = Nvml().find(machine)
    assert found.meters == ()
    assert found.absent == {"nvml GPU 0": "nvmlDeviceGetPowerUsage failed: Not Supported"}
    assert library.starts == 0


def test_a_gpu_that_is_lost(machine, install):
    gpu = {"name": "NVIDIA A2", "millijoules": 5}
    install(Pynvml([gpu]))
    (meter,) = Nvml().find(machine).meters
    del gpu["millijoules"]
    with pytest.raises(NotMeasured, match="nvmlDeviceGetTotalEnergyConsumption failed: Not Supported"):
        meter.read()


def test_no_gpu(machine, install):
    install(Pynvml())
    assert Nvml().find(machine).absent == {"nvml": "NVML shows no GPU"}


def test_why_not(tmp_path, machine, install):
    assert Nvml().find(tmp_path / "elsewhere").absent == {"nvml": "no NVIDIA driver is loaded"}
    install(Pynvml(broken=True))
    assert Nvml().find(machine).absent["nvml"].startswith("NVML does not start (Driver Not Loaded)")
    install(None)  # what Python takes for a module that can't be imported
    assert Nvml().find(machine).absent == {"nvml": "nvidia-ml-py is not installed; type: pip install nvidia-ml-py"}


def test_memory_of_a_process_on_all_gpus(machine, install):
    gpus = [{"processes": [(41, 1 << 30), (42, 2 << 30)]}, {"processes": [(42, 3 << 20)]}]
    library = install(Pynvml(gpus))
    assert nvml.gpu_memory_bytes(42, machine) == (2 << 30) + (3 << 20)
    assert library.starts == 0


@pytest.mark.parametrize(
    ("gpu", "why"),
    [
        ({"processes": [(1, 5)]}, "NVML lists no process 42 on a GPU"),
        ({"processes": [(42, None)]}, "does not tell the memory"),
        ({}, "does not list the processes"),
    ],
)
def test_memory_that_nvml_does_not_tell(machine, install, gpu, why):
    install(Pynvml([gpu]))
    with pytest.raises(NotMeasured, match=why):
        nvml.gpu_memory_bytes(42, machine)
