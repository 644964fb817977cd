"""One process at a time in a run folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdeploy import events
from kdeploy.errors import UserError
from kdeploy.provenance import now

LOCK = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder, which is made where there is none, for the length of the block.

    The lock is the kernel's (`flock`) on the file `.lock`, which says who holds it: it ends with its process however
    that ends, so that what a killed one left is taken over. UserError where another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    descriptor = _take(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _take(path: Path) -> int:
    """The open, locked file at `path`; again from the start where its holder removed it in between."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(
                f"{path.parent} is in use{_holder(path)}. Wait for it, end it, or choose another place with --out DIR."
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            events.warn(f"The file system of {path.parent} has no locks: see that no other process uses this run.")
            return descriptor
        if _is_at(descriptor, path):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps({"pid": os.getpid(), "host": platform.node(), "since": now()}).encode())
            return descriptor
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    """Who holds the lock, as the words after "is in use"; "" where that is not written yet."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return f" by process {content['pid']} on {content['host']} since {content['since']}"
    except (OSError, ValueError, LookupError, TypeError):
        return ""
