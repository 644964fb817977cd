"""CUDA through cuda-python: errors as sentences, and memory that is freed."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from kdeploy.errors import Unavailable


def runtime() -> Any:
    """The module `cuda.bindings.runtime`. Raises Unavailable where cuda-python is not installed."""
    try:
        from cuda.bindings import runtime as cudart
    except ImportError as error:
        raise Unavailable(
            f"TensorRT's engines run through cuda-python, which can't be imported ({error}). "
            "Type: pip install 'cuda-python>=12.8,<13' for CUDA 12, 'cuda-python>=13' for CUDA 13"
        ) from None
    return cudart


def call(function: Any, *arguments: Any) -> Any:
    """Call a function of the CUDA runtime and return what it gives besides its status.

    Raises Unavailable with CUDA's own words for any status but success.
    """
    try:
        status, *results = function(*arguments)
    except RuntimeError as error:  # before 12.9: there is no driver library to load
        raise Unavailable(f"CUDA can't be used here: {error}.") from None
    if int(status):
        _, words = runtime().cudaGetErrorString(status)
        why = words.decode() if isinstance(words, bytes) else str(words)
        raise Unavailable(f"CUDA's {function.__name__} failed: {why}.")
    return results[0] if len(results) == 1 else tuple(results)


def device() -> tuple[str, str]:
    """Compute capability ("8.7") and name of the current device."""
    cudart = runtime()
    index = call(cudart.cudaGetDevice)
    properties = call(cudart.cudaGetDeviceProperties, index)
    name = properties.name
    text = name.decode() if isinstance(name, bytes) else str(name)
    return f"{properties.major}.{properties.minor}", text.rstrip("\0")


class Pair:
    """The same bytes twice: pinned memory on the host, which a stream copies by itself, and memory on the device."""

    def __init__(self, size_bytes: int) -> None:
        cudart = runtime()
        self.size_bytes = size_bytes
        self.device: int = call(cudart.cudaMalloc, size_bytes)
        try:
            self.host: int = call(cudart.cudaMallocHost, size_bytes)
        except Unavailable:
            call(cudart.cudaFree, self.device)
            raise

    def array(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """The host's side as an array over the same memory."""
        buffer = (ctypes.c_byte * self.size_bytes).from_address(self.host)
        return np.ndarray(shape, dtype, buffer=memoryview(buffer))

    def to_device(self, size_bytes: int, stream: Any) -> None:
        """Copy the first bytes to the device when the stream comes to it."""
        cudart = runtime()
        kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        call(cudart.cudaMemcpyAsync, self.device, self.host, size_bytes, kind, stream)

    def to_host(self, size_bytes: int, stream: Any) -> None:
        """Copy the first bytes to the host when the stream comes to it."""
        cudart = runtime()
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        call(cudart.cudaMemcpyAsync, self.host, self.device, size_bytes, kind, stream)

    def free(self) -> None:
        cudart = runtime()
        call(cudart.cudaFreeHost, self.host)
        call(cudart.cudaFree, self.device)
