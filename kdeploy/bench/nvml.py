"""NVIDIA's management library, through the package nvidia-ml-py, which is one file over the driver's own library.

Nothing of it is imported before it is asked for. Functions by their names in the NVML API reference.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from kdeploy.bench.energy.base import NotMeasured

# WSL has the library without the first two.
_DRIVER = ("proc/driver/nvidia/version", "sys/module/nvidia/version", "dev/dxg")


def start(root: Path = Path("/")) -> ModuleType:
    """The module `pynvml`, initialised; `nvmlShutdown` ends it, and both may be called several times.

    Raises NotMeasured where the machine under `root` has no NVIDIA driver, or the package is missing or fails.
    """
    if not any((root / place).exists() for place in _DRIVER):
        raise NotMeasured("no NVIDIA driver is loaded")
    try:
        pynvml = importlib.import_module("pynvml")
    except ImportError:
        raise NotMeasured("nvidia-ml-py is not installed; type: pip install nvidia-ml-py") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NotMeasured(f"NVML does not start ({error}); nvidia-smi must work first") from None
    return pynvml


@contextmanager
def started(root: Path = Path("/")) -> Iterator[ModuleType]:
    """`start` for the length of a block."""
    pynvml = start(root)
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def gpu_memory_bytes(pid: int, root: Path = Path("/")) -> int:
    """GPU memory that a process holds now, on all GPUs together: `nvmlDeviceGetComputeRunningProcesses`.

    Raises NotMeasured where NVML is not there, does not tell, or does not list the process: it has no GPU context, or
    NVML counts processes as outside of this container does.
    """
    with started(root) as pynvml:
        try:
            used = [process.usedGpuMemory for process in _processes(pynvml) if process.pid == pid]
        except pynvml.NVMLError as error:
            raise NotMeasured(f"NVML does not list the processes of a GPU ({error})") from None
    if not used:
        raise NotMeasured(f"NVML lists no process {pid} on a GPU; in a container, type: docker run --pid=host ...")
    if None in used:
        raise NotMeasured("NVML does not tell the memory of a process here")
    return sum(used)


def _processes(pynvml: ModuleType) -> Iterator[Any]:
    for index in range(pynvml.nvmlDeviceGetCount()):
        yield from pynvml.nvmlDeviceGetComputeRunningProcesses(pynvml.nvmlDeviceGetHandleByIndex(index))
