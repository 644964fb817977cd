"""One ssh connection for all that a command does, so that a person types a password once."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

_PERSIST_S = 60
_LONGEST = 100
"""Of a socket's path, in bytes: the kernel takes 108, and ssh adds some for a moment."""


def shared(ssh: Sequence[str], host: str) -> list[str]:
    """Options by which ssh goes on with the connection that it has, or opens one that it can go on with.

    Nothing where nobody could be asked for a password, where the person's own configuration shares connections already,
    or where the temporary folder's name is too long for a socket.
    """
    return list(_shared(tuple(ssh), host)) if _can_ask() else []


@cache
def _shared(ssh: tuple[str, ...], host: str) -> tuple[str, ...]:
    asked = subprocess.run([*ssh, "-G", "--", host], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if asked.returncode != 0 or "controlmaster false" not in asked.stdout.splitlines():
        return ()
    folder = Path(tempfile.mkdtemp(prefix="kdeploy-ssh-"))
    socket = folder / "s"
    if len(os.fsencode(socket)) > _LONGEST:
        folder.rmdir()
        return ()
    atexit.register(_end, ssh, host, socket)
    return ("-o", "ControlMaster=auto", "-o", f"ControlPersist={_PERSIST_S}", "-o", f"ControlPath={socket}")


def _can_ask() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        return False
    return True


def _end(ssh: Sequence[str], host: str, socket: Path) -> None:
    """Have ssh's process in the background end, which otherwise stays for a minute."""
    if socket.exists():
        leave = [*ssh, "-o", f"ControlPath={socket}", "-O", "exit", "--", host]
        subprocess.run(leave, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    shutil.rmtree(socket.parent, ignore_errors=True)
