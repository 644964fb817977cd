"""Where kdeploy keeps what it could make again: decoded images, a teacher's outputs."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kdeploy import artifacts, events

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""What a file system answers that has no locks; two processes may then make the same thing, and one is kept."""


@dataclass(frozen=True)
class Entry:
    """One thing in the cache: its kind, its folder, its bytes, and when it was last used (seconds since 1970)."""

    kind: str
    folder: Path
    size_bytes: int
    used_s: float


def cache_root() -> Path:
    """`$KDEPLOY_CACHE`, else `$XDG_CACHE_HOME/kdeploy`, else `~/.cache/kdeploy`. An empty variable counts as unset."""
    if own := os.environ.get("KDEPLOY_CACHE"):
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "kdeploy"


def cache_folder(kind: str) -> Path:
    """The folder of one kind of cached thing, such as "images"; it need not exist yet."""
    return cache_root() / kind


def keep(folder: Path, make: Callable[[Path], None]) -> None:
    """Make `folder` unless it is there: `make` fills a temporary one beside it, which takes its name when it is whole.

    Of several processes one makes it and the others wait. What a killed process left behind is cleared away. Raises
    OSError where the place cannot be written, and what `make` raises.
    """
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.parent / f".{folder.name}.lock"):
            if not folder.is_dir():
                _make(folder, make)
    os.utime(folder)


def entries() -> list[Entry]:
    """What the cache holds: each folder in the folder of a kind, the one used longest ago first."""
    found = [
        Entry(kind.name, folder, artifacts.size_bytes(folder), folder.stat().st_mtime)
        for kind in _kinds()
        for folder in kind.iterdir()
        if folder.is_dir() and not folder.name.startswith(".")
    ]
    return sorted(found, key=lambda entry: entry.used_s)


def clear() -> int:
    """Remove everything that can be made again, with the locks; returns the bytes freed.

    Downloaded data sets (`data`) stay: they cannot be made again without a network. A process that has something
    mapped keeps it until it ends.
    """
    freed = 0
    for kind in _kinds():
        freed += artifacts.size_bytes(kind)
        shutil.rmtree(kind)
    return freed


DOWNLOADS = "data"
"""The folder of torchvision's downloads: it lies beside the cache and is none."""


def _kinds() -> list[Path]:
    root = cache_root()
    return sorted(path for path in root.iterdir() if path.is_dir() and path.name != DOWNLOADS) if root.is_dir() else []


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    for abandoned in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(abandoned)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        make(temporary)
        for path in (*temporary.iterdir(), temporary):
            artifacts.sync(path)
        temporary.chmod(0o777 & ~artifacts.umask())
        temporary.rename(folder)
        artifacts.sync(folder.parent)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # without locks, another process may have been faster
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock that is this file; it goes with the process, however that ends."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            events.say(f"waiting for another process that is making {path.name[1:].removesuffix('.lock')[:12]}")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
