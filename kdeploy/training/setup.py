"""Where and how to compute: device, precision, memory layout, threads. Each choice is said with its reason."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import nn

from kdeploy import events
from kdeploy.errors import Unavailable, UserError
from kdeploy.machine import instruction_sets
from kdeploy.recipe.schema import TrainSpec
from kdeploy.training.processes import ALONE, Processes

_BFLOAT16_ON_CPU = ("amx_bf16", "avx512_bf16", "bf16")


@dataclass(frozen=True)
class Setup:
    """The decisions of one training. fabric: this process's own device; processes: all that train together."""

    fabric: Fabric
    precision: Literal["float32", "bfloat16"]
    channels_last: bool
    processes: Processes = ALONE

    @property
    def device(self) -> torch.device:
        return self.fabric.device

    def place(self, module: nn.Module) -> nn.Module:
        """Move a module to the device, in the memory layout chosen."""
        if self.channels_last:
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return module.to(self.device)

    def synchronise(self, module: nn.Module) -> None:
        """Exchange the batch norms in a module for those that see all processes' parts of a batch."""
        if self.processes.count > 1:
            nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]

    def images(self, images: torch.Tensor) -> torch.Tensor:
        """Bring images `[B, C, H, W]` into the memory layout chosen."""
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images


def choose_device(asked: str) -> torch.device:
    """The device called `asked`: auto, cpu, cuda, cuda:N or mps. Raises Unavailable where there is none."""
    if asked == "auto":
        if torch.cuda.is_available():
            events.decided("device", "cuda", torch.cuda.get_device_name())
            return torch.device("cuda", 0)
        events.decided("device", "cpu", "no GPU that this torch can use")
        return torch.device("cpu")
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise UserError(f"There is no device {asked!r}. Choose auto, cpu, cuda, cuda:N or mps.") from None
    available = {
        "cpu": True,
        "cuda": (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(device.type, False):
        raise Unavailable(f"The device {asked} is not to be had here. `kdeploy doctor` says what this machine has.")
    return torch.device(device.type, device.index or 0) if device.type == "cuda" else device


def choose(spec: TrainSpec, device: torch.device, processes: Processes = ALONE) -> Setup:
    """Decide precision and layout for this device and open Lightning Fabric on it.

    Raises UserError for synchronised batch norm between processes on a CPU.
    """
    if spec.sync_batchnorm and processes.count > 1 and device.type == "cpu":
        raise UserError(
            "sync_batchnorm is true, and synchronised batch norm has no CPU form: set it to false, or take a network "
            "with GroupNorm."
        )
    precision = _choose_precision(spec, device)
    channels_last = _choose_layout(spec, device, precision)
    threads = max(1, len(os.sched_getaffinity(0)) // processes.on_this_machine)
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
        events.decided("threads", threads, "the cores that this process may use")
    plugin: Any = "bf16-mixed" if precision == "bfloat16" else "32-true"
    devices: Any = [device.index] if device.type == "cuda" else 1
    fabric = Fabric(accelerator=device.type, devices=devices, precision=plugin)
    return Setup(fabric, precision, channels_last, processes)


def _choose_precision(spec: TrainSpec, device: torch.device) -> Literal["float32", "bfloat16"]:
    if spec.precision != "auto":
        return spec.precision
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            events.decided("precision", "bfloat16", "this GPU multiplies bfloat16")
            return "bfloat16"
        events.decided("precision", "float32", "this GPU has no bfloat16")
        return "float32"
    hardware = sorted(instruction_sets().intersection(_BFLOAT16_ON_CPU)) if device.type == "cpu" else []
    if hardware:
        events.decided("precision", "bfloat16", f"this processor multiplies it ({', '.join(hardware)})")
        return "bfloat16"
    events.decided("precision", "float32", f"no bfloat16 instructions on this {device.type}")
    return "float32"


def _choose_layout(spec: TrainSpec, device: torch.device, precision: str) -> bool:
    """Channels last, unless the recipe says otherwise: faster for ResNets and MobileNetV2 in both
    precisions, with and without AMX; ShuffleNetV2, which shuffles channels, loses a little by it."""
    if spec.channels_last != "auto":
        return spec.channels_last
    events.decided("layout", "channels_last", f"faster for {precision} on {device.type}")
    return True
