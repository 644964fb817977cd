"""Files that are written whole or not at all, and content hashes to tell them apart."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdeploy.errors import UserError

_CHUNK = 1 << 20
_TEMPORARY = re.compile(r"\..+-[a-z0-9_]{8}(\.\w+)?")
"""The names that `atomic_path` gives to its temporary files."""
_NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EISDIR, errno.EROFS)


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it is synced and renamed onto `target`.

    The temporary file keeps the target's suffix, for writers that look at it. On any exception
    (Ctrl-C among them) the temporary file is removed and `target` is left as it was. A place that cannot be
    written, or a full disk, is a UserError that names the target. A device or a pipe, such as /dev/null, is written
    to and never replaced: root could.
    """
    is_stream = target.exists() and not (target.is_file() or target.is_dir())
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = None if is_stream else target.parent
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=beside)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}.") from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if is_stream:
            with temporary.open("rb") as content, target.open("wb") as stream:
                shutil.copyfileobj(content, stream)
            return
        sync(temporary)
        temporary.chmod(0o666 & ~umask())
        temporary.replace(target)
        sync(target.parent)
    except OSError as error:
        if error.errno in _NO_PLACE:
            raise UserError(f"{target} cannot be written: {error.strerror}.") from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Remove what processes that were killed while they wrote have left under `folder`, where nobody writes now."""
    for path in list(folder.rglob(".*")):
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink()


def umask() -> int:
    """The permissions that this process takes away from the files it makes; asking sets it for an instant."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync(path: Path) -> None:
    """Have a file's content, or a folder's list of names, on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(target: Path, content: bytes) -> None:
    """Write `content` to `target` whole or not at all."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def write_text(target: Path, content: str) -> None:
    """Write `content` as UTF-8 to `target` whole or not at all."""
    write_bytes(target, content.encode())


def write_json(target: Path, content: Any) -> None:
    """Write `content` as indented JSON to `target` whole or not at all; NaN is refused."""
    write_text(target, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; a missing or broken one is a UserError that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from None


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_json(content: Any) -> str:
    """The SHA-256 of a JSON-able value, independent of the order of keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def compressed_bytes(path: Path) -> int:
    """Bytes of a file, or of all files in a folder, each by itself after zlib: about what a download takes."""
    if path.is_dir():
        return sum(compressed_bytes(file) for file in path.rglob("*") if file.is_file())
    packer, size = zlib.compressobj(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            size += len(packer.compress(chunk))
    return size + len(packer.flush())


def size_bytes(path: Path) -> int:
    """The bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size
