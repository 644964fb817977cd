"""Pictures as one array: decoded once into a memory-mapped file, or anew at each access where they are too many."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import features

from kdeploy import caches, events
from kdeploy.artifacts import read_json, sha256_json
from kdeploy.errors import UserError
from kdeploy.machine import free_memory_bytes, memory_bytes
from kdeploy.recipe.schema import DataSpec
from kdeploy.sources.base import Images
from kdeploy.sources.decode import Picture, Survey, decode, decode_into, first_size, threads

_FORMAT = 1
"""Raise it when what is decoded from the same files changes: older entries are then not found."""
_SHARE = 4
"""Images are held in memory where they take a quarter of what is free: decoding, cutting the splits and making
tensors of them hold up to three copies at once."""


@dataclass(frozen=True)
class Streamed:
    """Pictures that are decoded at each access: `Images` for data sets that do not fit in memory.

    It can be sent to worker processes. shape: `(N, H, W, C)`.
    """

    pictures: Sequence[Picture]
    shape: tuple[int, int, int, int]
    resize: bool
    dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, which: Any, /) -> Any:
        """Raises a UserError for a picture that has changed or gone since the run began."""
        numbers = np.arange(len(self))[which] if isinstance(which, slice) else np.asarray(which)
        chosen = [self.pictures[number] for number in numbers.ravel().tolist()]
        out = np.empty((len(chosen), *self.shape[1:]), dtype=np.uint8)

        def one(number: int) -> None:
            decode_into(chosen[number], out[number], resize=self.resize)

        workers = threads(self.shape[2:0:-1])
        if workers == 1 or len(chosen) == 1:
            for number in range(len(chosen)):
                one(number)
        else:
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(one, range(len(chosen))))
        return out.reshape(*numbers.shape, *self.shape[1:])


def read(
    pictures: Sequence[Picture], spec: DataSpec, state: str | None, labels: NDArray[np.int64] | None = None
) -> tuple[Images, NDArray[np.int64]]:
    """The images of these pictures, and the place in `pictures` of each: those that cannot be read are left out.

    state: a hash that changes with the pictures' files (`kdeploy.sources.state`), by which what is decoded is found
    again; None: nothing is kept. labels: int64 `[len(pictures)]`, where decoding fills it in; it is kept as well.
    Raises a UserError for what `Survey.report` and `decode` refuse.
    """
    in_memory = _in_memory(pictures, spec)
    if state is None:
        images, survey = decode(pictures, spec.size, spec.broken, keep=in_memory)
    else:
        images, survey = _kept(pictures, spec, state, labels, in_memory)
    if images is not None:
        return images, survey.kept
    readable = tuple(pictures[number] for number in survey.kept)
    return Streamed(readable, (len(readable), *survey.shape), spec.size is not None), survey.kept


def _in_memory(pictures: Sequence[Picture], spec: DataSpec) -> bool:
    """Whether to decode everything at once: as the recipe says, else by what is free. UserError for what cannot be."""
    width, height = (spec.size, spec.size) if spec.size is not None else first_size(pictures)
    needed = len(pictures) * width * height * 3
    if spec.memory is False:
        return False
    if spec.memory is True:
        if needed > memory_bytes() // 2:
            raise UserError(
                f"{len(pictures)} images of {width}x{height} pixels take {needed / 2**30:.1f} GiB decoded, more than "
                f"half of this machine's {memory_bytes() / 2**30:.1f} GiB of memory; set data.memory: auto, or "
                "data.size to a smaller one."
            )
        return True
    free = free_memory_bytes()
    fits = needed <= free // _SHARE
    over = "under" if fits else "over"
    events.decided(
        "images",
        "in memory" if fits else "streamed from their files",
        f"{needed / 2**30:.2f} GiB decoded, {over} a quarter of the {free / 2**30:.1f} GiB of memory that is free",
    )
    return fits


def _kept(
    pictures: Sequence[Picture], spec: DataSpec, state: str, labels: NDArray[np.int64] | None, in_memory: bool
) -> tuple[NDArray[np.uint8] | None, Survey]:
    """As `decode`, but done once: the cache holds the array and the survey, or for streaming the survey alone."""
    key = sha256_json(
        {
            "format": _FORMAT,
            "state": state,
            "size": spec.size,
            "array": in_memory,
            "pillow": PIL.__version__,
            "libraries": [features.version(name) for name in ("jpg", "zlib", "webp")],
        }
    )
    folder = caches.cache_folder("images") / key[:32]
    made: list[tuple[NDArray[np.uint8] | None, Survey]] = []

    def make(temporary: Path) -> None:
        made.append(decode(pictures, spec.size, spec.broken, keep=in_memory))
        _write(temporary, *made[0], labels)

    for _ in range(2):
        try:
            caches.keep(folder, make)
        except OSError as error:
            events.warn(
                f"Decoded images cannot be kept in {folder.parent} ({error.strerror}); the next run decodes again."
            )
            return made[0] if made else decode(pictures, spec.size, spec.broken, keep=in_memory)
        found = _open(folder, in_memory, labels)
        if found is not None:
            if not made:
                found[1].report(spec.broken)
            return found
        events.warn(f"{folder} is damaged; it is made again.")
        shutil.rmtree(folder, ignore_errors=True)
        made.clear()
    raise UserError(f"{folder} cannot be read back as it was written: the disk is failing, or it was changed by hand.")


def _write(folder: Path, images: NDArray[np.uint8] | None, survey: Survey, labels: NDArray[np.int64] | None) -> None:
    if images is not None:
        if images.nbytes > 0.95 * shutil.disk_usage(folder).free:
            raise OSError(errno.ENOSPC, "the disk has no room for them")
        np.save(folder / "images.npy", images)
    if labels is not None:
        np.save(folder / "labels.npy", labels)
    facts = {**asdict(survey), "kept": survey.kept.tolist()}
    (folder / "survey.json").write_text(json.dumps(facts), encoding="utf-8")


def _open(
    folder: Path, in_memory: bool, labels: NDArray[np.int64] | None
) -> tuple[NDArray[np.uint8] | None, Survey] | None:
    """What `_write` wrote, the array memory-mapped; None where it is not whole."""
    try:
        facts = read_json(folder / "survey.json")
        kept = np.array(facts["kept"], dtype=np.int64)
        height, width, channels = facts["shape"]
        survey = Survey(facts["count"], (height, width, channels), kept, tuple(facts["failures"]))
        if labels is not None:
            labels[...] = np.load(folder / "labels.npy")
        images = np.load(folder / "images.npy", mmap_mode="r") if in_memory else None
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None
    if images is not None and (images.shape != (len(kept), *survey.shape) or images.dtype != np.uint8):
        return None
    return images, survey
