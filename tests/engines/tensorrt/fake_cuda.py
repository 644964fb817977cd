"""A CUDA that runs in ordinary memory, in order, and only when it is waited for.

Names and argument counts are those of the real bindings (`test_contract.py` checks that ours fit them). What a stream
is given runs when the stream is synchronised, so a result that is read too early is wrong here as it is on a GPU.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

Work = Callable[[], None]


Status = enum.IntEnum("Status", {"cudaSuccess": 0, "cudaErrorMemoryAllocation": 2, "cudaErrorNoDevice": 100})


class FakeCuda:
    def __init__(self, *, name: bytes = b"Orin", capability: tuple[int, int] = (8, 7)) -> None:
        self.memory: dict[int, Any] = {}
        self.pinned: set[int] = set()
        self.queue: list[Work] = []
        self.captured: list[Work] | None = None
        self.streams = self.graphs = self.launches = self.copies = 0
        self.has_device = True
        self.name, self.capability = name, capability
        self.module = ModuleType("cuda.bindings.runtime")
        for function in [name for name in dir(self) if name.startswith("cuda")]:
            setattr(self.module, function, getattr(self, function))
        self.module.cudaError_t = Status  # type: ignore[attr-defined]
        kinds = enum.IntEnum("cudaMemcpyKind", ["cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"])
        self.module.cudaMemcpyKind = kinds  # type: ignore[attr-defined]
        modes = enum.IntEnum("cudaStreamCaptureMode", ["cudaStreamCaptureModeThreadLocal"])
        self.module.cudaStreamCaptureMode = modes  # type: ignore[attr-defined]

    @property
    def is_clean(self) -> bool:
        """Whether all was given back."""
        return not self.memory and not self.streams and not self.graphs

    def submit(self, work: Work) -> None:
        (self.queue if self.captured is None else self.captured).append(work)

    def cudaGetDevice(self) -> tuple[Status, int | None]:
        return (Status.cudaSuccess, 0) if self.has_device else (Status.cudaErrorNoDevice, None)

    def cudaGetDeviceProperties(self, device: int) -> tuple[Status, Any]:
        major, minor = self.capability
        return Status.cudaSuccess, SimpleNamespace(name=self.name, major=major, minor=minor)

    def cudaGetErrorString(self, error: Status) -> tuple[Status, bytes]:
        words = {100: b"no CUDA-capable device is detected", 2: b"out of memory"}
        return Status.cudaSuccess, words[int(error)]

    def cudaMalloc(self, size: int) -> tuple[Status, int]:
        buffer = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(buffer)] = buffer
        return Status.cudaSuccess, ctypes.addressof(buffer)

    def cudaMallocHost(self, size: int) -> tuple[Status, int]:
        status, address = self.cudaMalloc(size)
        self.pinned.add(address)
        return status, address

    def cudaFree(self, address: int) -> tuple[Status]:
        assert address not in self.pinned
        del self.memory[address]
        return (Status.cudaSuccess,)

    def cudaFreeHost(self, address: int) -> tuple[Status]:
        self.pinned.remove(address)
        del self.memory[address]
        return (Status.cudaSuccess,)

    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: Any, stream: int) -> tuple[Status]:
        host, device = (src, dst) if kind.name == "cudaMemcpyHostToDevice" else (dst, src)
        assert host in self.pinned, "memory that is not pinned is copied while everything waits"
        assert device in self.memory
        assert device not in self.pinned
        assert count <= min(len(self.memory[dst]), len(self.memory[src]))
        self.copies += 1
        self.submit(lambda: ctypes.memmove(dst, src, count))
        return (Status.cudaSuccess,)

    def cudaStreamCreate(self) -> tuple[Status, int]:
        self.streams += 1
        return Status.cudaSuccess, 7

    def cudaStreamDestroy(self, stream: int) -> tuple[Status]:
        self.streams -= 1
        return (Status.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Status]:
        assert self.captured is None
        while self.queue:
            self.queue.pop(0)()
        return (Status.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: Any) -> tuple[Status]:
        assert not self.queue
        self.captured = []
        return (Status.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Status, list[Work]]:
        recorded, self.captured = self.captured, None
        assert recorded is not None
        return Status.cudaSuccess, recorded

    def cudaGraphInstantiate(self, graph: list[Work], flags: int) -> tuple[Status, list[Work]]:
        self.graphs += 1
        return Status.cudaSuccess, list(graph)

    def cudaGraphDestroy(self, graph: list[Work]) -> tuple[Status]:
        graph.clear()
        return (Status.cudaSuccess,)

    def cudaGraphLaunch(self, executable: list[Work], stream: int) -> tuple[Status]:
        assert executable, "a destroyed graph was launched"
        self.launches += 1
        self.queue.extend(executable)
        return (Status.cudaSuccess,)

    def cudaGraphExecDestroy(self, executable: list[Work]) -> tuple[Status]:
        executable.clear()
        self.graphs -= 1
        return (Status.cudaSuccess,)
