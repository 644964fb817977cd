"""Opening a `.kdz` file that may be damaged or hostile: nothing of it is used before all of it is verified."""

from __future__ import annotations

import hashlib
import stat
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ValidationError

from kdeploy.bundle.info import (
    ENGINE,
    INDEX,
    MAX_INDEX_BYTES,
    MAX_PARTS,
    SCHEMA_VERSION,
    SEAL_BYTES,
    BundleInfo,
    Part,
    safe_name,
)
from kdeploy.engines.base import MANIFEST
from kdeploy.errors import UserError

_CHUNK = 1 << 20
# What zipfile raises on broken archives, beside BadZipFile.
_BROKEN = (zipfile.BadZipFile, RuntimeError, ValueError, OverflowError, EOFError, struct.error)


class _Version(BaseModel):
    schema_version: int


def inspect(path: Path) -> BundleInfo:
    """Verify every byte of a bundle and return its index.

    Raises a UserError of one sentence where the file is missing, damaged, changed, or from a newer kdeploy.
    """
    return _verify(path, None)


@contextmanager
def open_bundle(path: Path) -> Iterator[Path]:
    """Verify a bundle and yield its engine folder, unpacked; the folder is removed at the end of the block.

    Raises what `inspect` raises, before the block is entered.
    """
    with tempfile.TemporaryDirectory(prefix="kdeploy-") as temporary:
        _verify(path, Path(temporary))
        yield Path(temporary) / ENGINE


def _verify(path: Path, unpack_to: Path | None) -> BundleInfo:
    """Check the bundle, and copy its parts as they are checked where a folder is given."""
    if not path.is_file():
        raise UserError(f"There is no bundle {path}.")
    with path.open("rb") as stream:
        if not zipfile.is_zipfile(stream):
            raise UserError(f"{path} is not a bundle, or was cut short: it has no archive directory at its end.")
        try:
            with zipfile.ZipFile(stream) as archive:
                entries = _entries(path, archive)
                info = _index(path, archive, entries)
                _check_listing(path, info, entries)
                for name, part in info.parts.items():
                    _check_part(path, archive, entries[name], part, unpack_to)
            _check_seal(path, stream)
        except _BROKEN as error:
            raise _damaged(path, f"its archive cannot be read ({error})") from None
        except OSError as error:
            raise UserError(f"{path} cannot be read or unpacked: {error}.") from None
    return info


def _damaged(path: Path, how: str) -> UserError:
    return UserError(f"{path} is damaged or was changed after it was packed: {how}; copy or pack it again.")


def _entries(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The archive's entries by name, refused unless each is a plain stored file under a safe name."""
    listed = archive.infolist()
    if len(listed) > MAX_PARTS:
        raise UserError(f"{path} is refused: it holds {len(listed):,} files, and a bundle at most {MAX_PARTS:,}.")
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in listed:
        name, kind = entry.orig_filename, stat.S_IFMT(entry.external_attr >> 16)
        if name != INDEX and not safe_name(name):
            raise UserError(f"{path} is refused: it holds a file of the unsafe name {name!r}.")
        if name in entries:
            raise UserError(f"{path} is refused: it holds {name} twice.")
        if kind not in (0, stat.S_IFREG):
            raise UserError(f"{path} is refused: {name} in it is a link or a device, not a plain file.")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise UserError(f"{path} is refused: {name} in it is compressed, and a bundle's parts never are.")
        entries[name] = entry
    return entries


def _index(path: Path, archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo]) -> BundleInfo:
    if INDEX not in entries:
        raise UserError(f"{path} is not a bundle: it holds no {INDEX}.")
    if entries[INDEX].file_size > MAX_INDEX_BYTES:
        raise UserError(f"{path} is refused: its {INDEX} is larger than {MAX_INDEX_BYTES >> 20} MiB.")
    text = archive.read(entries[INDEX])
    try:
        version = _Version.model_validate_json(text).schema_version
        if version > SCHEMA_VERSION:
            raise UserError(f"{path} has the bundle schema {version}; this kdeploy reads {SCHEMA_VERSION}: update it.")
        return BundleInfo.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"]) or "it"
        raise _damaged(path, f"in its {INDEX}, {where}: {first['msg']}") from None


def _check_listing(path: Path, info: BundleInfo, entries: dict[str, zipfile.ZipInfo]) -> None:
    """Index and archive must name the same parts, with the same sizes."""
    present = entries.keys() - {INDEX}
    for name in sorted(info.parts.keys() - present):
        raise _damaged(path, f"the part {name} is missing")
    for name in sorted(present - info.parts.keys()):
        raise _damaged(path, f"the part {name} is not listed in its {INDEX}")
    if ENGINE + MANIFEST not in present:
        raise _damaged(path, f"the part {ENGINE}{MANIFEST} is missing")
    for name, part in info.parts.items():
        if entries[name].file_size != part.size_bytes:
            raise _damaged(path, f"the part {name} has {entries[name].file_size} bytes instead of {part.size_bytes}")
    if info.size_bytes > path.stat().st_size:
        raise _damaged(path, "its parts are larger together than the file")


def _check_part(
    path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, part: Part, unpack_to: Path | None
) -> None:
    """Hash one part, and copy it where a folder is given."""
    digest = hashlib.sha256()
    try:
        with archive.open(entry) as source:
            if unpack_to is None:
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
            else:
                target = unpack_to / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as copy:
                    while chunk := source.read(_CHUNK):
                        digest.update(chunk)
                        copy.write(chunk)
    except zipfile.BadZipFile:
        raise _damaged(path, f"the part {entry.filename} does not match its checksum") from None
    if digest.hexdigest() != part.sha256:
        raise _damaged(path, f"the part {entry.filename} does not match its SHA-256")


def _check_seal(path: Path, stream: BinaryIO) -> None:
    """The last bytes must be the SHA-256 of all before them."""
    remaining = stream.seek(0, 2) - SEAL_BYTES
    stream.seek(0)
    digest = hashlib.sha256()
    while remaining > 0:
        chunk = stream.read(min(_CHUNK, remaining))
        digest.update(chunk)
        remaining -= len(chunk)
    if stream.read(SEAL_BYTES) != digest.hexdigest().encode():
        raise _damaged(path, "the file does not match the SHA-256 at its end")
