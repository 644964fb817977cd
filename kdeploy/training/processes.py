"""The processes that train together: how many, which one this is, and what they tell one another.

Lightning Fabric starts or finds them and connects them (torchrun, SLURM, or processes of its own on one machine).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor

from kdeploy import events
from kdeploy.errors import KdeployError, Unavailable, UserError
from kdeploy.loading import Batch

# Fabric says at each start what `events.decided` says, with its reason.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

T = TypeVar("T")

_PATIENCE = timedelta(days=30)
"""How long a process may wait for what the first one does by itself: it measures, packs, makes a teacher cache."""


@dataclass(frozen=True)
class Processes:
    """The processes of one training. All of them call the functions below, in the same order.

    fabric: connects them, None where there is one; waiting: a group for what is no part of a step, over gloo, so that
    a process that waits for long keeps no GPU busy.
    """

    fabric: Fabric | None = None
    waiting: Any = None

    @property
    def count(self) -> int:
        return 1 if self.fabric is None else self.fabric.world_size

    @property
    def rank(self) -> int:
        """Which one this is, from 0."""
        return 0 if self.fabric is None else self.fabric.global_rank

    @property
    def first(self) -> bool:
        """Whether it is this one that writes files."""
        return self.rank == 0

    @property
    def device(self) -> torch.device | None:
        """Where this one trains; None where there is one, which decides by itself."""
        return None if self.fabric is None else self.fabric.device

    @property
    def share(self) -> tuple[int, int]:
        return self.rank, self.count

    @property
    def on_this_machine(self) -> int:
        if self.fabric is None:
            return 1
        nodes: int = self.fabric.strategy.num_nodes  # type: ignore[attr-defined]
        return self.count // nodes

    def weight(self, batch: Batch) -> float:
        """The share of this process's part of a batch in all of it; of a batch that each has whole, 1 / count."""
        return len(batch) / sum(batch.sizes) if batch.sizes else 1 / self.count

    def from_first(self, value: T) -> T:
        """What the first process gave."""
        if self.fabric is None:
            return value
        given = [value]
        with _others_are_there():
            dist.broadcast_object_list(given, src=0, group=self.waiting)
        return given[0]

    def all(self, value: T) -> list[T]:
        """What each process gave, in their order."""
        if self.fabric is None:
            return [value]
        given: list[Any] = [None] * self.count
        with _others_are_there():
            dist.all_gather_object(given, value, group=self.waiting)
        return given

    def add(self, tensor: Tensor) -> Tensor:
        """The sum over the processes of a tensor of one shape, in its place."""
        if self.fabric is not None:
            with _others_are_there():
                self.fabric.all_reduce(tensor, reduce_op="sum")
        return tensor

    def rows(self, tensor: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """The rows `[size, ...]` of every process, in their order: `[sum of sizes, ...]`. Without gradient."""
        if self.fabric is None:
            return tensor
        padded = tensor.new_zeros(max(sizes), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        with _others_are_there():  # as bytes: not every connection knows every type
            mine = padded.flatten().view(torch.uint8)
            raw = mine.new_empty(self.count * len(mine))
            dist.all_gather_into_tensor(raw, mine)
        found = raw.view(tensor.dtype).view(self.count, *padded.shape)
        return torch.cat([rows[:size] for rows, size in zip(found, sizes, strict=True)])

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process goes through the block, then all the others do."""
        if not self.first:
            self.from_first(None)
        yield
        if self.first:
            self.from_first(None)


ALONE = Processes()
"""One process."""


@contextmanager
def opened(asked: str, devices: int, nodes: int) -> Iterator[Processes]:
    """The processes that `--devices` and `--nodes` ask for, of which this is one.

    asked: the device: auto, cpu or cuda. Where neither torchrun nor SLURM has started them, those of one machine are
    started here, each with this process's own command line. When the block ends by an error they are ended, too.

    Raises UserError where these numbers are not those of the launcher, or several machines have none; Unavailable
    where the machine has not so many GPUs.
    """
    _require_as_launched(devices, nodes)
    if devices * nodes == 1:
        yield ALONE
        return
    accelerator = _accelerator(asked, devices)
    threads = os.environ.get("OMP_NUM_THREADS")
    try:
        fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, strategy="ddp")
        fabric.launch()
    except ValueError as error:  # what SLURM says of the job is another number
        raise UserError(f"--devices {devices} --nodes {nodes} is not what this job was given: {error}") from None
    if threads is None:  # Fabric sets it, for what this process starts as well: for the measurements
        os.environ.pop("OMP_NUM_THREADS", None)
    started = getattr(fabric.strategy.launcher, "procs", [])
    processes = Processes(fabric, dist.new_group(backend="gloo", timeout=_PATIENCE))
    if processes.first:
        machines = f"on each of {nodes} machines" if nodes > 1 else "on this machine"
        events.decided("processes", processes.count, f"{devices} {machines}, as --devices asks")
    try:
        with nullcontext() if processes.first else events.unheard():
            yield processes
        for process in started:
            process.wait()
        dist.destroy_process_group()
    except KdeployError as error:
        if processes.first:
            raise
        raise type(error)(f"{error} (process {processes.rank} of {processes.count}, counted from 0)") from None
    finally:
        for process in started:  # they write nothing that an end could tear
            process.kill()


def _require_as_launched(devices: int, nodes: int) -> None:
    """Raise where torchrun has started another number of processes, or nobody has started those of other machines."""
    if dist.is_torchelastic_launched():
        there, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        if there != devices * nodes:
            flags = f"--devices {here}" + (f" --nodes {there // here}" if there > here else "")
            raise UserError(
                f"torchrun has started {there} processes, and --devices {devices} --nodes {nodes} asks for "
                f"{devices * nodes}: type {flags}."
            )
    elif nodes > 1 and "SLURM_NTASKS" not in os.environ:
        raise UserError(
            f"--nodes {nodes}: the processes of several machines are started by torchrun or SLURM, on each machine by "
            f"torchrun --nnodes {nodes} --nproc-per-node {devices} --rdzv-backend c10d --rdzv-endpoint HOST:PORT "
            f"-m kdeploy.cli.main and then these words; see kdeploy/training/SCALING.md."
        )


def _accelerator(asked: str, devices: int) -> str:
    """The kind of device that several processes train on: cuda or cpu."""
    if asked.startswith(("cuda:", "mps")):
        raise UserError(f"--device {asked} is one device, and --devices asks for {devices}: type --device cuda or cpu.")
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if asked not in ("auto", "cuda"):
        raise UserError(f"There is no device {asked!r} for several processes. Choose auto, cpu or cuda.")
    here = torch.cuda.device_count()
    if here < devices:
        raise Unavailable(
            f"--devices {devices} asks for {devices} GPUs of this machine, and torch can use {here}: type "
            f"{f'--devices {here}' if here else '--device cpu'}."
        )
    return "cuda"


@contextmanager
def _others_are_there() -> Iterator[None]:
    """Turn what a broken connection looks like into a sentence."""
    try:
        yield
    except RuntimeError as error:
        if "onnection" not in str(error):
            raise
        raise Unavailable("Another process of this training has ended; what it said last is the reason.") from None
