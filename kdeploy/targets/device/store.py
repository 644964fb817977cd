"""The folder on the device, and the files that are kept in it by their SHA-256."""

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional

from kdeploy.targets.device.base import Refused, write

FOLDER = ".kdeploy-target"
"""In the home folder; where that cannot be written, as in a read-only container, in the temporary one, by user."""
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)
"""What a file system answers that has none, as on many memory cards."""


class Store:
    """The folder; it need not exist yet."""

    def __init__(self) -> None:
        self.folder = _folder()

    def kept(self, digest: str) -> Path:
        """Where the file of this hash lies, if it is here."""
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise ValueError(digest)
        return self.folder / "files" / digest

    def missing(self, digests: List[str]) -> List[str]:
        """Which of these files are not here yet."""
        return [digest for digest in digests if not self.kept(digest).exists()]

    def keep(self, sha256: str, chunks: Iterable[bytes]) -> None:
        """Keep these bytes, if they have this hash. All are read whatever happens: what follows them is something else.

        Raises Refused where they have another hash, OSError where there is no room.
        """
        digest = hashlib.sha256()
        problem: Optional[OSError] = None
        target = self.kept(sha256)
        handle, name = None, ""
        try:
            try:
                self.make()
                target.parent.mkdir(exist_ok=True)
                handle, name = tempfile.mkstemp(prefix=".", dir=str(target.parent))
            except OSError as error:
                problem = error
            for chunk in chunks:
                digest.update(chunk)
                try:
                    if handle is not None and problem is None:
                        write(handle, chunk)
                except OSError as error:
                    problem = error
            if handle is not None and problem is None and digest.hexdigest() == sha256:
                os.fsync(handle)  # it is never sent again: a power cut must not leave its name without its bytes
                os.chmod(name, 0o444)
                os.replace(name, str(target))
                name = ""
                return
        finally:
            if handle is not None:
                os.close(handle)
            if name:
                os.unlink(name)
        if problem is not None:
            raise problem
        raise Refused("damaged")

    def forget(self, digests: List[str]) -> None:
        """Keep these files no longer."""
        for digest in digests:
            if self.kept(digest).exists():
                self.kept(digest).unlink()

    def link(self, digest: str, target: Path) -> None:
        """Have a kept file elsewhere; copied on a file system that has no links."""
        try:
            os.link(str(self.kept(digest)), str(target))
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            shutil.copyfile(str(self.kept(digest)), str(target))

    def make(self) -> None:
        """Have the folder."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def remove(self) -> Dict[str, Any]:
        """Remove the folder with all that is in it; how much that was, and whether anything is left."""
        there = self.folder.exists()
        real = self.folder.resolve() if there else self.folder  # it may be a link to a larger disk
        size = sum(path.lstat().st_size for path in real.rglob("*") if not path.is_dir()) if there else 0
        shutil.rmtree(str(real), ignore_errors=True)
        if self.folder.is_symlink():
            self.folder.unlink()
        return {"size_bytes": size, "there": there, "left": real.exists()}

    def room(self) -> Dict[str, Any]:
        """How much more its disk holds."""
        place = self.folder
        while not place.exists():
            place = place.parent
        return {"free_bytes": shutil.disk_usage(str(place)).free}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else starts something in the meantime."""
        handle = os.open(str(self.folder), os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError:  # a file system without locks
                pass
            yield
        finally:
            os.close(handle)


def _folder() -> Path:
    home = Path(os.path.expanduser("~"))
    if home.is_absolute() and os.access(str(home), os.W_OK):
        return home / FOLDER
    found = Path(tempfile.gettempdir()) / (FOLDER + "-" + str(os.geteuid()))
    if found.is_symlink() or (found.exists() and found.stat().st_uid != os.geteuid()):  # all may write beside it
        raise Refused("foreign", folder=str(found))
    return found
