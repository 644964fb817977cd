"""The image files of a tree of folders, on disk or inside zip files, which are read in memory and never unpacked."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from kdeploy import events
from kdeploy.errors import UserError
from kdeploy.sources.state import State, of_file

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
FILE_LIMIT_BYTES = 64 << 20
_ENCRYPTED = 0x1


@dataclass(frozen=True)
class ImageFile:
    """One file: `parts` is its path inside the tree, `where` names it in messages, `read` gives its bytes.

    state: what changes when its content does (`kdeploy.sources.state`).
    """

    parts: tuple[str, ...]
    where: str
    read: Callable[[], bytes]
    state: State


def image_files(root: Path) -> list[ImageFile]:
    """The image files under `root`, sorted by path; they can be read from other processes, too.

    root: a zip file, a folder holding zip files that form one tree together, or a plain folder. Hidden files
    and files that are no images by name are left out; zip files beside folders of images are not read. Raises a
    UserError for a zip file that is broken, holds a name that leaves its folder, or holds a file twice.
    """
    files = [] if root.is_file() else _in_folder(root)
    archives = [root] if root.is_file() else sorted(root.glob("*.zip"))
    if files and archives:
        events.decided("images", f"the folders in {root}", f"not {archives[0].name}, which lies beside them")
        archives = []
    files += [file for path in archives for file in _in_zip(path)]
    files.sort(key=lambda file: file.parts)
    for one, other in pairwise(files):
        if one.parts == other.parts:
            raise UserError(f"{one.where} and {other.where} are the same file of the tree.")
    return files


def _in_folder(root: Path) -> list[ImageFile]:
    found = ((path, path.relative_to(root).parts) for path in root.rglob("*"))
    return [
        ImageFile(parts, str(path), partial(_read_limited, path), of_file(path))
        for path, parts in found
        if _is_image(parts) and path.is_file()
    ]


def _read_limited(path: Path) -> bytes:
    if path.stat().st_size > FILE_LIMIT_BYTES:
        raise ValueError(f"larger than {FILE_LIMIT_BYTES >> 20} MiB")
    return path.read_bytes()


class _Archive:
    """A zip file that each process opens for itself: one position in a file cannot serve two of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, zipfile.ZipFile] | None = None

    def read(self, entry: zipfile.ZipInfo) -> bytes:
        """The bytes of an entry."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), zipfile.ZipFile(self.path)
        return self._opened[1].read(entry)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_opened": None}


def _in_zip(path: Path) -> list[ImageFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise UserError(f"{path} is not a whole zip file: {error}.") from None
    source, state = _Archive(path), of_file(path)
    files = []
    for entry in entries:
        _refuse_hostile(path, entry)
        parts = PurePosixPath(entry.filename).parts
        if not entry.is_dir() and _is_image(parts):
            here = State((*state.facts, entry.filename, entry.file_size, entry.CRC), state.changed_ns)
            files.append(ImageFile(parts, f"{path}:{entry.filename}", partial(source.read, entry), here))
    return files


def _refuse_hostile(path: Path, entry: zipfile.ZipInfo) -> None:
    """Raise a UserError for an entry whose name leaves its folder, that is encrypted, or that unpacks to too much.

    zipfile never gives more bytes than the size that an entry declares, so checking that size is enough.
    """
    name = entry.orig_filename
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/") or re.match("[A-Za-z]:", name):
        raise UserError(f"{path}: the entry {name!r} points outside of its folder; the file is not to be trusted.")
    if entry.flag_bits & _ENCRYPTED:
        raise UserError(f"{path}: the entry {name!r} is encrypted; kdeploy reads plain zip files only.")
    if entry.file_size > FILE_LIMIT_BYTES and _is_image(PurePosixPath(name).parts):
        raise UserError(
            f"{path}: the entry {name!r} unpacks to {entry.file_size} bytes, over {FILE_LIMIT_BYTES >> 20} MiB."
        )


def _is_image(parts: tuple[str, ...]) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return bool(parts) and not hidden and parts[-1].lower().endswith(SUFFIXES)
