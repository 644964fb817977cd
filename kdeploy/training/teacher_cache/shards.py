"""The files of a teacher cache: one raw array a view and tensor, written whole or not at all, memory-mapped."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from kdeploy.artifacts import atomic_path
from kdeploy.errors import UserError

_PROBE_BYTES = 32 << 20


@dataclass(frozen=True)
class Layout:
    """One tensor of a cache: its shape without the batch, the type it is stored in, and the type it had."""

    shape: tuple[int, ...]
    stored: torch.dtype
    live: torch.dtype

    @property
    def size_bytes(self) -> int:
        """Bytes a sample."""
        return torch.Size(self.shape).numel() * self.stored.itemsize


class Shards:
    """The arrays `[samples, *shape]` of a cache folder, by view and name."""

    def __init__(self, folder: Path, layouts: dict[str, Layout], samples: int) -> None:
        self.folder = folder
        self.layouts = layouts
        self.samples = samples
        self._open: dict[tuple[int, str], Tensor] = {}

    def path(self, view: int, name: str) -> Path:
        layout = self.layouts[name]
        kind = str(layout.stored).removeprefix("torch.")
        return self.folder / f"{name.replace(' ', '-')}.{kind}" / f"view-{view:04d}.bin"

    def has(self, view: int, name: str) -> bool:
        """Whether it is there and of the right size; a torn one never gets its name."""
        path = self.path(view, name)
        return path.is_file() and path.stat().st_size == self.size_bytes(name)

    def size_bytes(self, name: str) -> int:
        """Bytes of one view of this tensor."""
        return self.samples * self.layouts[name].size_bytes

    def read(self, view: int, name: str, index: Tensor) -> Tensor:
        """The rows `index` `[B]` of a tensor, in the type that the teacher gave, on the device of `index`."""
        layout = self.layouts[name]
        if (view, name) not in self._open:
            path = str(self.path(view, name))
            numel = self.samples * torch.Size(layout.shape).numel()
            mapped = torch.from_file(path, shared=False, size=numel, dtype=layout.stored)
            self._open[view, name] = mapped.view(self.samples, *layout.shape)
        rows = self._open[view, name].index_select(0, index.cpu())
        return rows.to(index.device, layout.live, non_blocking=True)

    @contextmanager
    def writing(self, view: int, names: list[str]) -> Iterator[Writer]:
        """Write these tensors of a view, sample after sample; they are there when the block has ended well."""
        with ExitStack() as stack:
            paths = {name: stack.enter_context(atomic_path(self.path(view, name))) for name in names}
            files = {name: stack.enter_context(path.open("wb")) for name, path in paths.items()}
            yield Writer(files, self.layouts)


class Writer:
    """Appends batches to the files of a view."""

    def __init__(self, files: Mapping[str, IO[bytes]], layouts: dict[str, Layout]) -> None:
        self._files = files
        self._layouts = layouts

    def append(self, tensors: dict[str, Tensor]) -> None:
        """Append a batch of each tensor; UserError for numbers that the storage type cannot hold."""
        for name, file in self._files.items():
            stored = tensors[name].to(self._layouts[name].stored)
            if not stored.isfinite().all():
                kind = str(stored.dtype).removeprefix("torch.")
                raise UserError(
                    f"The teacher's {name} holds numbers that {kind} cannot: set teacher.cache.dtype to bfloat16, or "
                    "float32 where those are infinite as well."
                )
            file.write(stored.contiguous().cpu().view(torch.uint8).numpy().data)


def write_speed(folder: Path) -> float:
    """Bytes a second that the disk of `folder` takes, from 32 MiB written and synced."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".speed-{os.getpid()}"
    block = os.urandom(_PROBE_BYTES)
    try:
        started = time.perf_counter()
        with path.open("wb") as file:
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
        return _PROBE_BYTES / (time.perf_counter() - started)
    finally:
        path.unlink(missing_ok=True)
