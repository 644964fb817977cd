"""A device that is a folder of this machine: all is real but the network, which a script in place of ssh stands for."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

from kdeploy.targets import parse
from kdeploy.targets.channel import connected
from kdeploy.targets.device.store import FOLDER
from kdeploy.targets.environment import require
from kdeploy.targets.wheel import requirements

TARGET = "ssh://pi@loopback"
MARK = "KDEPLOY_LOOPBACK"

SSH = """#!/bin/sh
# The last word is what the remote shell is to run.
for command; do :; done
if [ -e {folder}/down ]; then echo "ssh: connect to host loopback port 22: No route to host" >&2; exit 255; fi
echo $$ > {folder}/connection
echo "Welcome to the device."
exec env -i PATH={path} HOME={folder}/home {mark}={folder} setsid sh -c "$command"
"""


class Loopback:
    """The device; `home` is its user's."""

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        (folder / "bin").mkdir()
        (folder / "bin" / "python3").symlink_to(python)
        self.ssh = folder / "ssh"
        path = f"{folder}/bin:{os.environ['PATH']}"
        self.ssh.write_text(SSH.format(folder=folder, path=path, mark=MARK))
        self.ssh.chmod(0o755)

    @property
    def kept(self) -> Path:
        """The one folder that is ours on it."""
        return self.home / FOLDER

    def make_ready(self) -> None:
        """An environment without a download: its packages are those of the tests."""
        target = parse(TARGET)
        assert target is not None
        with connected(target) as channel:
            channel.ask("hello", own=False)
            channel.ask("venv", system_packages=False)
            channel.ask("state", state={"requirements": requirements(), "extras": []})
        self.add_packages()
        with connected(target) as channel:
            require(channel, target)  # brings the code

    def add_packages(self) -> None:
        (packages,) = self.kept.glob("venv/lib/python*/site-packages")
        (packages / "tests.pth").write_text(sysconfig.get_path("purelib"))

    def make_like(self, ready: Loopback) -> None:
        """The environment of another device, copied: this is what takes time."""
        shutil.copytree(ready.kept, self.kept, symlinks=True)

    def cut(self) -> None:
        """The connection ends, and there is no other for now."""
        (self.folder / "down").touch()
        os.kill(int((self.folder / "connection").read_text()), signal.SIGKILL)

    def restore(self) -> None:
        (self.folder / "down").unlink()

    def processes(self) -> list[str]:
        """The command lines of all that runs on it."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.folder}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return [line for line in found if line]

    def jobs(self) -> list[Path]:
        return list(self.kept.glob("job-*"))


def until(what: Callable[[], object], seconds: float = 30) -> None:
    """Wait for something to be so."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.02)


def old_python(folder: Path, version: tuple[int, int, int]) -> str:
    """A Python that says that it is of this version."""
    script = folder / "old-python"
    patch = f"import sys; sys.version_info = {version!r} + ('final', 0)"
    # -c PROGRAM: the program is ours, with a line before it.
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{patch}\n$2"\n')
    script.chmod(0o755)
    return str(script)
